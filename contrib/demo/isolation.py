"""A small world of its own for the demonstration, which leaves nothing behind.

Takes a function; runs it as process 1 of new PID, network and mount namespaces and gives its exit status.  An ordinary
user gets a user namespace as well, in which it is root (user_namespaces(7)).  /run and /var/log are empty tmpfs there,
so that the program's own default paths can be used.
Guarantees: when the function ends, or this process is killed in whatever way, the kernel ends every process in the
PID namespace (pid_namespaces(7)) and takes down networks and mounts; no file is ever made outside.
Does not: hide the rest of the file system.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from nftban.errors import PermissionNeededError

# linux/sched.h, linux/mount.h, linux/prctl.h
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_PRIVATE = 2, 4, 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1

PRIVATE_FOLDERS = (Path("/run"), Path("/var/log"))

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def unshare(flags: int) -> None:
    """unshare(2), which Python has only from 3.12 on; raises OSError."""
    _checked(_libc.unshare(flags), "unshare")


def enter(namespace: int, kind: int) -> None:
    """setns(2): the calling thread enters the namespace behind this file descriptor; raises OSError."""
    _checked(_libc.setns(namespace, kind), "setns")


def isolated(program: Callable[[], int]) -> int:
    """The program's exit status; raises PermissionNeededError where the kernel gives us no namespaces."""
    try:
        _leave()
    except OSError as e:
        raise PermissionNeededError(f"this kernel allows no private network here ({e.strerror})", _advice()) from None
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _init(program)

    def pass_on(number: int, _: object) -> None:
        # A terminal sends SIGINT to the child as well.
        if number != signal.SIGINT:
            os.kill(child, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _advice() -> str:
    if os.geteuid() != 0:
        return "run it as root: sudo make demo"
    return "a container needs the right to make namespaces: docker run --privileged"


def _leave() -> None:
    """Into namespaces of our own; the PID namespace is for the children."""
    namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        unshare(namespaces)
    else:
        unshare(namespaces | CLONE_NEWUSER)
        # Without setgroups denied an ordinary user may not map its group (user_namespaces(7)).
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)
    for folder in PRIVATE_FOLDERS:
        _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=64m")


def _init(program: Callable[[], int]) -> NoReturn:
    """Process 1: when it ends, everything in here ends."""
    status = 70  # EX_SOFTWARE
    try:
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
        # Process 1 gets no signal that it has no handler for.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)
        status = program()
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _mount(source: str | None, target: Path, kind: str | None, flags: int, options: str = "") -> None:
    texts = [None if text is None else text.encode() for text in (source, str(target), kind, options)]
    _checked(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")
