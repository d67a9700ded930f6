"""Notices on their way out: to a program of the admin's, and to the services that apprise knows.

Takes Notices and the settings [notify]; gives, per receiver, why it failed.
    program      started without a shell, with one JSON object on its standard input (docs/notifications.md); its
                 standard output is thrown away; it has to end with status 0 within `timeout` seconds, or it is killed
                 with everything it started
    URLs         apprise's (https://github.com/caronc/apprise), imported when the first notice is sent
Guarantees: one receiver at a time, and no exception comes from one; no URL, which may hold a password, is in anything
said here: they are called by their number and scheme.  Output of any size takes a few kilobytes.
Does not: decide what is sent (notices.py), try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from nftban import __version__
from nftban.config.schema import Notify
from nftban.daemon.notices import Notice
from nftban.records import Event

MOST_SAID = 500
"""Characters of a program's complaint that are told."""

LONGEST_TITLE = 200

Row = dict[str, Any]


def payload(notice: Notice) -> bytes:
    """What the program reads: a line of JSON in ASCII."""
    plain = {
        "v": 1,
        "nftban": __version__,
        "host": socket.gethostname(),
        "time": notice.time,
        "kind": notice.kind,
        "title": notice.title,
        "text": "\n".join(notice.body),
        "count": notice.count,
        "events": [_event_row(event) for event in notice.events],
    }
    return json.dumps(plain).encode("ascii") + b"\n"


def _event_row(event: Event) -> Row:
    prefix = None if event.prefix is None else str(event.prefix)
    return {"time": event.time, "kind": event.kind, "text": event.text, "prefix": prefix}


async def send(settings: Notify, notice: Notice) -> list[Row]:
    """To every receiver, one after the other: `receiver`, and `failure`, why it did not work, or None."""
    rows: list[Row] = []
    if settings.hook:
        rows.append(
            {"receiver": settings.hook[0], "failure": await run(settings.hook, payload(notice), settings.timeout)}
        )
    if settings.urls:
        failures = await asyncio.to_thread(_to_services, settings.urls, notice)
        rows += [
            {"receiver": f"URL {number} ({masked(url)})", "failure": failure}
            for number, (url, failure) in enumerate(zip(settings.urls, failures, strict=True), 1)
        ]
    return rows


async def trial(settings: Notify, now: float) -> Row:
    """Sends a notice that says that it is one."""
    text = "this is a trial: notifications of nftban arrive"
    notice = Notice(now, "test", text, (text,), (Event(now, "test", text),))
    return {"sent": await send(settings, notice)}


def masked(url: str) -> str:
    """What may be shown of a URL."""
    scheme, colon, _ = url.partition("://")
    return f"{scheme}://..." if colon and scheme.isascii() and scheme.isalnum() else "..."


def url_faults(urls: Sequence[str]) -> list[tuple[int, str, str]]:
    """Which of them cannot be used: number from 0, why, and what to do; imports apprise where there are any."""
    if not urls:
        return []
    if importlib.util.find_spec("apprise") is None:
        return [(0, "needs apprise, which is not installed", "pip install 'nftban[notify]'")]
    advice = "see https://github.com/caronc/apprise for how each service is written"
    return [
        (n, f"entry {n + 1} ({masked(url)}) is no URL that apprise knows", advice)
        for n, url in enumerate(urls)
        if _service(url) is None
    ]


def _service(url: str) -> Any:
    import apprise

    # What it logs names hosts, users and more.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    return apprise.Apprise.instantiate(url, suppress_exceptions=True)


def _to_services(urls: Sequence[str], notice: Notice) -> list[str | None]:
    return [_to_service(url, notice) for url in urls]


def _to_service(url: str, notice: Notice) -> str | None:
    try:
        service = _service(url)
        if service is None:
            return "apprise does not know such a URL"
        title = f"nftban on {socket.gethostname()}: {notice.title}"[:LONGEST_TITLE]
        sent = service.notify(title=title, body="\n".join(notice.body) or notice.title)
    except ImportError:
        return "apprise is not installed"
    except Exception as e:  # noqa: BLE001 - a hundred plug-ins; their words may hold the URL
        return f"the service failed ({type(e).__name__})"
    return None if sent else "the service did not take it"


async def run(argv: Sequence[str], given: bytes, timeout: float) -> str | None:  # noqa: ASYNC109 - it is told in words
    """Runs a program with that on its standard input; why it failed, or None.

    argv: its path and arguments; timeout: seconds.  It has ended when nobody holds its standard error any more.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # all that it starts can be killed with it
        )
    except (OSError, ValueError) as e:
        return f"cannot be started: {getattr(e, 'strerror', None) or e}"
    said = bytearray()
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(_give(process, given), _listen(process, said))
            status = await process.wait()
    except BaseException as e:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(e, TimeoutError):
            return f"was killed: it did not end within {timeout:g} s"
        raise
    if status == 0:
        return None
    words = " ".join(said.decode("utf-8", "replace").split())[:MOST_SAID]
    how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return how + (f": {words}" if words else "")


async def _give(process: asyncio.subprocess.Process, given: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for above
    # Who does not read it need not.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(given)
        await process.stdin.drain()
    process.stdin.close()


async def _listen(process: asyncio.subprocess.Process, said: bytearray) -> None:
    assert process.stderr is not None  # noqa: S101 - asked for above
    while chunk := await process.stderr.read(1 << 14):
        said += chunk[: max(0, 4 * MOST_SAID - len(said))]
