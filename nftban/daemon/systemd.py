"""What the daemon and systemd say to each other.

Takes the environment that systemd starts us in; gives how often the watchdog is to be fed, and tells systemd our state.
Guarantees: without systemd nothing is said and nothing fails.  Does not: decide whether all is well: the daemon feeds
the watchdog from the event loop that reads the logs, and only while its logs are read on (logs.py, `stalled`).
Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """One datagram to the socket that systemd names, if it does."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s, contextlib.suppress(OSError):
        s.connect("\0" + path[1:] if path[0] == "@" else path)
        s.sendall(state.encode())


def watchdog_interval() -> float | None:
    """Seconds after which WATCHDOG=1 is due, half of what systemd allows; None where it watches nobody, or another."""
    try:
        allowed = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
        watched = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return allowed / 2 if allowed > 0 and watched == os.getpid() else None
