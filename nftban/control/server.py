"""The daemon's side of the control socket.

Takes a path, a coroutine function that carries out an operation, and a group; while `serve` is entered, requests are
answered.  A connection may send one request after the other.
Guarantees: the socket is never open to others, not for an instant; a live daemon's socket is not taken, a dead one's
is replaced.  Only root, the daemon's own user and members of the group are answered (the kernel's word: SO_PEERCRED,
SO_PEERGROUPS).  A client can send a request of MAX_REQUEST bytes within SECONDS_TO_SEND, take its answer within
SECONDS_TO_TAKE, and hold one of MAX_CLIENTS places; whatever it sends, the daemon lives on.
Does not: know the operations.  An operation goes on when its caller leaves.
BUGS: SO_PEERGROUPS gives at most 256 groups here; a user with more is known by his first group only.
Source: unix(7), socket(7); linux/net/unix/af_unix.c, unix_bind (a socket file's mode is that of the socket's inode).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nftban.control.messages import (
    MAX_REQUEST,
    WHO_MAY_ASK,
    BadRequest,
    decode_request,
    encode_error,
    encode_result,
)
from nftban.errors import (
    EXIT_NOT_PERMITTED,
    EXIT_TRY_AGAIN,
    EXIT_USAGE,
    ConfigError,
    Fault,
    NftbanError,
    PermissionNeededError,
    TryAgainError,
)

Call = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]

MAX_CLIENTS = 32
SECONDS_TO_SEND = 10.0
SECONDS_TO_TAKE = 30.0
SECONDS_TO_FINISH = 5.0
"""How long operations under way may go on when the server stops."""

EXIT_INTERNAL = 70  # sysexits.h, EX_SOFTWARE
_SO_PEERGROUPS = 59  # asm-generic/socket.h; the socket module does not name it
_UCRED = struct.Struct("iII")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end: process, user, and the groups it had when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]

    def may_ask(self, group: int | None) -> bool:
        return self.uid in (0, os.geteuid()) or (group is not None and group in self.groups)


def peer(connection: socket.socket) -> Peer:
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:
        packed = b""
    return Peer(pid, uid, frozenset({gid, *(number for (number,) in struct.iter_unpack("I", packed))}))


@contextlib.asynccontextmanager
async def serve(path: Path, call: Call, group: str = "") -> AsyncIterator[None]:
    """Answers on the socket until left; then the socket is gone and operations under way were given time to finish.

    Raises TryAgainError where another daemon has the socket, ConfigError where the path or the group is no good,
    PermissionNeededError where we may not make the socket.
    """
    group_id = _group_id(group)
    listener, made = _listen(path, group_id)
    server = _Server(call, group_id, listener)
    server.listen()
    try:
        yield
    finally:
        server.deafen()
        _remove(path, made)
        await server.finish()


def _group_id(group: str) -> int | None:
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        fault = Fault("daemon.group", 0, f"there is no group {group!r}", f"make it: addgroup --system {group}")
        raise ConfigError((fault,)) from None


def _listen(path: Path, group_id: int | None) -> tuple[socket.socket, os.stat_result]:
    """The listening socket and its file."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _locked(path.parent):
            _make_room(path)
            # The file gets the socket's own mode: nobody can connect before it has its group.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(str(path))
            if group_id is not None:
                os.chown(path, -1, group_id)
            path.chmod(0o660)
            listener.listen(MAX_CLIENTS)
            return listener, path.stat()
    except PermissionError as e:
        listener.close()
        raise PermissionNeededError(
            f"the control socket {path} cannot be made: {e.strerror}",
            "its folder must belong to the daemon's user, who must be a member of [daemon] group if one is named",
        ) from None
    except OSError as e:  # also a path of more than 107 bytes
        listener.close()
        raise ConfigError((Fault(str(path), 0, f"the control socket cannot be made: {e.strerror or e}"),)) from None
    except BaseException:
        listener.close()
        raise


def _remove(path: Path, made: os.stat_result) -> None:
    """Removes the socket's file if it is still the one we made."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), made):
            path.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two daemons that start at once could both replace the same dead socket; the second is sent away."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgainError("another daemon is just starting", "wait a moment; one of them is enough") from None
        yield
    finally:
        os.close(descriptor)


def _make_room(path: Path) -> None:
    """Removes a dead daemon's socket; raises where something else is in the way."""
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise ConfigError((Fault(str(path), 0, "is in the control socket's place and no socket", "move it away"),))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full: it lives
            who = ""
        else:
            who = f", process {peer(probe).pid}"
    raise TryAgainError(
        f"another daemon runs{who}: it answers on {path}",
        "stop it first (systemctl stop nftban), or give this one a [daemon] socket of its own",
    )


@dataclass(slots=True)
class _Server:
    call: Call
    group_id: int | None
    listener: socket.socket
    clients: set[asyncio.Task[None]] = field(default_factory=set)
    working: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: bool = False

    def listen(self) -> None:
        if not self.stopping:
            asyncio.get_running_loop().add_reader(self.listener, self._accept)

    def deafen(self) -> None:
        self.stopping = True
        asyncio.get_running_loop().remove_reader(self.listener)
        self.listener.close()

    def _accept(self) -> None:
        # Done by hand: asyncio's servers keep a caller hanging who comes in the moment that they are closed.
        try:
            connection, _ = self.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as e:  # no descriptors left: callers wait in the queue
            log.error("control: a caller cannot be taken: %s", e.strerror or e)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.listener)
            loop.call_later(1, self.listen)
            return
        connection.setblocking(False)
        task = asyncio.create_task(self._attend(connection))
        self.clients.add(task)
        task.add_done_callback(lambda ended: self._forget(ended, connection))

    def _forget(self, task: asyncio.Task[None], connection: socket.socket) -> None:
        # Also where a task was cancelled before it began, and nothing of _attend ever ran.
        self.clients.discard(task)
        self.working.discard(task)
        connection.close()

    async def _attend(self, connection: socket.socket) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs is a task's
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_REQUEST - 1)
        try:
            if refusal := self._refusal(connection):
                writer.write(refusal)
            else:
                await self._converse(reader, writer, task)
            async with asyncio.timeout(SECONDS_TO_TAKE):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.CancelledError):  # TimeoutError is one: gone, too slow, or we are stopping
            writer.transport.abort()

    def _refusal(self, connection: socket.socket) -> bytes:
        who = peer(connection)
        if not who.may_ask(self.group_id):
            log.warning("control: refused process %d of user %d", who.pid, who.uid)
            return encode_error("this user may not ask the daemon", WHO_MAY_ASK, EXIT_NOT_PERMITTED)
        if len(self.clients) > MAX_CLIENTS:
            log.warning("control: more than %d clients at once", MAX_CLIENTS)
            return encode_error("the daemon has too many callers", "try again in a moment", EXIT_TRY_AGAIN)
        return b""

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None]
    ) -> None:
        while not self.stopping:
            try:
                async with asyncio.timeout(SECONDS_TO_SEND):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                writer.write(encode_error(f"a request has at most {MAX_REQUEST} bytes", "", EXIT_USAGE))
                return
            self.working.add(task)
            answer = await self._answer(line)
            writer.write(answer)
            async with asyncio.timeout(SECONDS_TO_TAKE):
                await writer.drain()
            self.working.discard(task)

    async def _answer(self, line: bytes) -> bytes:
        request = decode_request(line)
        if isinstance(request, BadRequest):
            return encode_error(request.why, request.advice, EXIT_USAGE)
        try:
            return encode_result(await self.call(request.op, request.args))
        except NftbanError as e:
            return encode_error(str(e), e.advice, e.exit_code)
        except Exception:  # a fault of ours must not end the daemon, nor show its inside
            log.exception("control: the operation %r failed", request.op)
            return encode_error("internal error", "the daemon's log says more: journalctl -u nftban", EXIT_INTERNAL)

    async def finish(self) -> None:
        """Ends idle conversations at once, others when their operation is done or SECONDS_TO_FINISH are over."""
        for task in self.clients - self.working:
            task.cancel()
        if self.working:
            await asyncio.wait(self.working, timeout=SECONDS_TO_FINISH)
        for task in self.clients:
            task.cancel()
        if self.clients:
            await asyncio.wait(self.clients)
