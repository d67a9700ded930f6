"""What the daemon is made of, in one place, for those who need several parts of it.

Gives `House`; without a daemon (a command that works on store and kernel itself) its `pipeline` and `status`
are None.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nftban.config.load import Loaded
from nftban.daemon.allowlist import AllowList
from nftban.daemon.assemble import Assembly
from nftban.daemon.bans import Bans
from nftban.daemon.lockout import Lockout
from nftban.daemon.notify import Notifications
from nftban.daemon.pipeline import Pipeline
from nftban.kernel import Kernel
from nftban.store.sqlite import Store
from nftban.verify.verify import Verifier

if TYPE_CHECKING:
    from nftban.daemon.subscriptions import Subscriptions  # numpy comes with it

Json = dict[str, Any]


@dataclass(slots=True)
class House:
    """Everything an operation may need.  reconcile: lifts what must not be banned and makes
    the kernel equal to the rest; pipeline, status, feeds and notify are None without a daemon, feeds also
    where none is in use."""

    loaded: Loaded
    assembly: Assembly
    store: Store
    kernel: Kernel
    bans: Bans
    lockout: Lockout
    verifier: Verifier
    clock: Callable[[], float]
    allow: AllowList
    reconcile: Callable[[], Awaitable[None]]
    pipeline: Pipeline | None = None
    status: Callable[[], Json] | None = None
    feeds: Subscriptions | None = None
    notify: Notifications | None = None
