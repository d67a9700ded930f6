"""What must not be banned, as of now: on the real addresses of a network namespace, and with looks that really fail."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nftban.config.schema import Settings
from nftban.daemon.allowlist import AllowList
from nftban.daemon.lockout import ADDRESSES_MAX_AGE, Lockout
from nftban.errors import TryAgainError
from nftban.prefixes import Prefix
from nftban.store.sqlite import Store
from tests.contract.test_kernel_backends import fresh_network
from tests.unit.daemon.stage import SteppedLoop

# Where a descriptor is missing pyroute2 leaves a half-made event loop behind, which complains as it is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ALLOWED, RESOLVER, OWN, STRANGER = "203.0.113.99", "203.0.113.53", "198.51.100.9", "203.0.113.7"


class Watched(Lockout):
    """Counts its looks."""

    looks = 0

    def _look(self, addresses_too: bool) -> None:
        self.looks += 1
        super()._look(addresses_too)


def made() -> Watched:
    settings = Settings.model_validate({})
    folder = TemporaryDirectory()
    allow = AllowList(Store(Path(folder.name) / "state.db"), [Prefix.parse(ALLOWED)], ())
    return Watched(settings, [Prefix.parse(RESOLVER)], allow)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened: sockets neither."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Numbers below the limit may be free: they are taken first.
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def pass_time(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    loop.ahead += seconds


async def objection(lockout: Lockout, text: str) -> str | None:
    return (await lockout.current()).objection(Prefix.parse(text))


def in_network(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    with fresh_network(), asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(main())


def test_addresses_that_come_and_go() -> None:
    async def test() -> None:
        lockout = made()
        assert await objection(lockout, STRANGER) is None
        assert "the allow list" in (await objection(lockout, ALLOWED) or "")
        assert "a resolver" in (await objection(lockout, RESOLVER) or "")
        assert await objection(lockout, OWN) is None
        ip("link", "set", "lo", "up")
        ip("address", "add", f"{OWN}/24", "dev", "lo")
        pass_time(ADDRESSES_MAX_AGE + 1)
        assert "an address of this machine" in (await objection(lockout, OWN) or "")
        assert "covers 198.51.100.9" in (await objection(lockout, "198.51.100.0/28") or "")
        ip("address", "del", f"{OWN}/24", "dev", "lo")
        pass_time(ADDRESSES_MAX_AGE + 1)
        assert await objection(lockout, OWN) is None

    in_network(test)


def test_who_waits_at_the_same_time_shares_a_look_and_who_comes_later_has_one_of_his_own() -> None:
    async def test() -> None:
        lockout = made()
        await asyncio.gather(*(lockout.current() for _ in range(50)))
        assert lockout.looks <= 2
        before = lockout.looks
        await lockout.current()
        assert lockout.looks == before + 1, "a session may have begun since"

    in_network(test)


def test_nothing_may_be_banned_before_the_first_look() -> None:
    async def test() -> None:
        lockout = made()
        assert lockout.at_once(Prefix.parse(STRANGER)) is None
        with no_descriptors(), pytest.raises(TryAgainError, match="own addresses cannot be read"):
            await lockout.current()
        assert lockout.at_once(Prefix.parse(STRANGER)) is None
        assert await objection(lockout, STRANGER) is None
        assert lockout.failure is None

    in_network(test)


def test_what_was_seen_last_stays_protected_while_looks_fail(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        ip("link", "set", "lo", "up")
        ip("address", "add", f"{OWN}/24", "dev", "lo")
        lockout = made()
        assert await objection(lockout, OWN)
        for _ in range(3):
            pass_time(ADDRESSES_MAX_AGE + 1)
            with no_descriptors():
                assert await objection(lockout, OWN)
                assert await objection(lockout, ALLOWED)
                assert await objection(lockout, STRANGER) is None
            assert lockout.failure is not None and "cannot be read" in lockout.failure
        assert len([r for r in caplog.records if r.name.endswith("lockout")]) == 1, "it is said once"
        pass_time(ADDRESSES_MAX_AGE + 1)
        await lockout.current()
        assert lockout.failure is None

    in_network(test)


def test_where_nobody_is_connected_by_ssh_is_known_at_once() -> None:
    async def test() -> None:
        lockout = made()
        assert lockout.at_once(Prefix.parse(STRANGER)) is None, "the addresses are not known yet"
        await lockout.current()
        protected = lockout.at_once(Prefix.parse(STRANGER))
        assert protected is not None and protected.objection(Prefix.parse(ALLOWED))
        pass_time(ADDRESSES_MAX_AGE + 0.1)
        assert lockout.at_once(Prefix.parse(STRANGER)) is None
        lockout.look_soon()
        lockout.look_soon()
        assert lockout.at_once(Prefix.parse(STRANGER)) is None, "it is on its way"
        assert lockout._looking is not None
        await lockout._looking
        assert lockout.at_once(Prefix.parse(STRANGER)) is not None
        looks, looking = lockout.looks, lockout._looking
        assert looks == 2
        lockout.look_soon()
        assert lockout._looking is looking, "the last one is good enough"

    in_network(test)


@pytest.mark.parametrize(("family", "client"), [(4, "198.51.100.7"), (6, "2001:db8::7"), (46, "198.51.100.7")])
def test_whoever_has_just_connected_by_ssh_has_to_be_looked_at(family: int, client: str) -> None:
    """However short ago: it may be an admin who logs in.  46: an IPv4 client of an IPv6 socket."""

    async def test() -> None:
        ip("link", "set", "lo", "up")
        ip("address", "add", client, "dev", "lo")
        lockout = made()
        await lockout.current()
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with socket.create_server(("", 22), family=kind, dualstack_ipv6=family == 46) as sshd:
            assert lockout.at_once(Prefix.parse(client)) is not None
            with socket.create_connection((client, 22), source_address=(client, 0)):
                accepted, _ = sshd.accept()
                with accepted:
                    assert lockout.at_once(Prefix.parse(client)) is None
                    assert lockout.at_once(Prefix.parse(client).widened(24)) is None, "nor can its network be banned"
                    assert lockout.at_once(Prefix.parse(STRANGER)) is not None
            assert lockout.at_once(Prefix.parse(client)) is not None, "it has hung up"

    in_network(test)


def test_a_connection_to_another_port_holds_nobody_up() -> None:
    async def test() -> None:
        ip("link", "set", "lo", "up")
        ip("address", "add", OWN, "dev", "lo")
        lockout = made()
        await lockout.current()
        with (
            socket.create_server(("", 25)) as smtpd,
            socket.create_connection((OWN, 25), source_address=(OWN, 0)),
        ):
            accepted, _ = smtpd.accept()
            with accepted:
                assert lockout.at_once(Prefix.parse(OWN)) is not None

    in_network(test)


def test_without_an_answer_about_connections_it_has_to_be_looked_at() -> None:
    async def test() -> None:
        lockout = made()
        await lockout.current()
        with no_descriptors():
            assert lockout.at_once(Prefix.parse(STRANGER)) is None
        assert lockout.at_once(Prefix.parse(STRANGER)) is not None
        lockout.close()
        lockout.close()

    in_network(test)


def test_a_look_ahead_that_fails_is_nobodys_trouble(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        lockout = made()
        with no_descriptors():
            lockout.look_soon()
            looking = lockout._looking
            assert looking is not None
            await looking
        assert lockout.at_once(Prefix.parse(STRANGER)) is None

    in_network(test)
    assert not [r for r in caplog.records if r.name == "asyncio"]


def test_who_asks_by_ssh_is_protected_for_his_own_command_only() -> None:
    async def test() -> None:
        lockout = made()
        asking = await lockout.current([Prefix.parse(STRANGER)])
        assert "the command comes from there" in (asking.objection(Prefix.parse(STRANGER)) or "")
        assert await objection(lockout, STRANGER) is None

    in_network(test)


def test_a_new_address_of_ours_is_heard_of_at_once() -> None:
    async def test() -> None:
        ip("link", "set", "lo", "up")
        lockout = made()
        await lockout.current()
        assert lockout.at_once(Prefix.parse(STRANGER)) is not None
        told = asyncio.Event()
        lockout.follow(told.set)
        ip("address", "add", f"{OWN}/24", "dev", "lo")
        await asyncio.wait_for(told.wait(), 10)
        assert lockout.at_once(Prefix.parse(OWN)) is None, "it has to be looked at first"
        assert await objection(lockout, OWN)
        told.clear()
        ip("address", "del", f"{OWN}/24", "dev", "lo")
        await asyncio.wait_for(told.wait(), 10)
        assert await objection(lockout, OWN) is None
        lockout.close()

    in_network(test)


def test_a_change_during_a_look_makes_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        lockout = made()
        look = lockout._look

        def disturbed(addresses_too: bool) -> None:
            look(addresses_too)
            lockout.forget()

        lockout._look = disturbed  # type: ignore[method-assign]
        await lockout.current()
        assert lockout.at_once(Prefix.parse(STRANGER)) is None

    in_network(test)
