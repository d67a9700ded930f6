"""Asks the daemon, and waits for its answer.

Takes the socket's path, an operation and its arguments; gives the result.  Blocking, standard library only: it stands
in the command line's way, where every millisecond is seen.
Guarantees: whatever happens to the connection, a result or one of the errors named below comes back within `timeout`
(and a moment).  Does not: retry, know the operations.
Source: unix(7).
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

from nftban.control.messages import WHO_MAY_ASK, decode_answer, encode_request
from nftban.errors import NoDaemonError, PermissionNeededError, TryAgainError


def call(path: Path, op: str, args: dict[str, Any], timeout: float = 60.0) -> dict[str, Any]:
    """The operation's result.

    timeout: seconds for everything together.  Raises NoDaemonError where nobody listens, PermissionNeededError
    where we may not open the socket, TryAgainError where the daemon is too busy or goes away, AnsweredError where
    it refuses.
    """
    until = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            _connect(connection, path)
            # A daemon that has no use for us answers before it reads; its words are worth more than a broken pipe.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(encode_request(op, args))
            return decode_answer(_line(connection, until))
        except TimeoutError:
            raise TryAgainError(
                f"the daemon did not answer within {timeout:g} s", "see what it does: journalctl -u nftban"
            ) from None


def _connect(connection: socket.socket, path: Path) -> None:
    try:
        connection.connect(str(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NoDaemonError(f"no daemon listens on {path}", "start it: systemctl start nftban") from None
    except PermissionError:
        raise PermissionNeededError(f"the control socket {path} may not be opened by this user", WHO_MAY_ASK) from None
    except BlockingIOError:
        raise TryAgainError("the daemon has too many callers waiting", "try again in a moment") from None
    except TimeoutError:
        raise
    except OSError as e:
        raise NoDaemonError(f"the control socket {path} cannot be used: {e.strerror or e}") from None


def _line(connection: socket.socket, until: float) -> bytes:
    """Bytes up to the newline; TimeoutError once `until` (monotonic clock) is past."""
    received = bytearray()
    while not received.endswith(b"\n"):
        connection.settimeout(max(0.001, until - time.monotonic()))
        try:
            chunk = connection.recv(1 << 16)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise TryAgainError("the daemon went away without an answer", "see what happened: journalctl -u nftban")
        received += chunk
        if time.monotonic() > until:
            raise TimeoutError
    return bytes(received)
