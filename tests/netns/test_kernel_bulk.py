"""Many elements, full sets, busy objects, small buffers: against the real kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from nftban.errors import KernelError, PermissionNeededError
from nftban.kernel import codec, compare, trial, wire
from nftban.kernel.layout import ALL, DEFAULT, Layout
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.plan import difference, grouped
from nftban.kernel.transactions import FEWEST, STEPS
from nftban.kernel.wire import NetfilterSocket
from nftban.prefixes import Prefix
from nftban.records import Delta, Element

HASHES, RANGES = ("ban4_all", "ban6_all", "ban4net24_ssh", "ban6net64_all"), ("ban4range_all", "ban6range_smtp")
SMALL_SET = "add table inet nftban { set ban4_all { type ipv4_addr; size 3; flags timeout; counter; }; }"
NFT_MSG_GETRULE = 7
TIMES = r"(?<=timeout|expires) \w+|\s"
HIGHEST = {4: (1 << 32) - 1, 16: (1 << 128) - 1}

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def kernel(netns: object) -> Iterator[NetlinkKernel]:
    with NetlinkKernel(DEFAULT) as made:
        made.create()
        yield made


def many(name: str, count: int, until: float | None) -> list[Element]:
    """Keys all over the key space; ranges of two up to the highest key."""
    spec = DEFAULT.address_sets[name]
    step = (HIGHEST[spec.width] + 1) // count
    firsts = [HIGHEST[spec.width] - 1 - i * step for i in reversed(range(count))]
    return [Element(name, first, first + spec.interval, until) for first in firsts]


def listed(name: str) -> str:
    return subprocess.run(
        ["nft", "list", "set", "inet", "nftban", name], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize("name", [*HASHES, *RANGES])
def test_many_at_once_are_what_few_at_a_time_are(kernel: NetlinkKernel, name: str) -> None:
    now = time.time()
    elements = many(name, 10 * FEWEST, now + 1000)
    elements[::3] = [Element(e.set, e.first, e.last) for e in elements[::3]]
    assert kernel.apply(Delta(add=tuple(elements)), now) == []
    assert kernel.present(now, [name]) == elements
    at_once = listed(name)
    assert not kernel.compare(grouped(elements), now)
    assert kernel.apply(Delta(delete=tuple(elements)), now) == []
    assert kernel.present(now) == []
    for i in range(0, len(elements), FEWEST - 1):
        assert kernel.apply(Delta(add=tuple(elements[i : i + FEWEST - 1])), now) == []
    assert kernel.present(now, [name]) == elements
    # All but the times, which nft lists to the millisecond.
    assert re.sub(TIMES, "", listed(name)) == re.sub(TIMES, "", at_once)
    assert not kernel.compare(grouped(elements), time.time())


@pytest.mark.parametrize("name", [*HASHES, *RANGES])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_big_refresh_gives_every_expiry(kernel: NetlinkKernel, name: str, in_place: bool) -> None:
    now = time.time()
    kernel._updates = in_place and kernel._in_place
    elements = many(name, 3 * FEWEST, now + 100)
    assert kernel.apply(Delta(add=tuple(elements[::2])), now) == []
    for until in (now + 5000, None, now + 50):
        later = [Element(e.set, e.first, e.last, until) for e in elements]
        assert kernel.apply(Delta(refresh=tuple(later)), now) == []
        assert not difference(later, kernel.present(now), now)


def test_one_element_by_the_fast_way(kernel: NetlinkKernel) -> None:
    now = time.time()
    for name in HASHES:
        for until in (now + 1000, None, now + 2000):
            element = Element(name, 512 << 8, 512 << 8, until)
            assert kernel._applied_one(Delta(add=(element,)), now)
            assert not difference([element], kernel.present(now), now)
            assert kernel._applied_one(Delta(delete=(element,)), now)
            assert kernel.present(now) == []
            # Nothing there: neither a fault nor the ordinary way.
            assert kernel._applied_one(Delta(delete=(element,)), now)
            assert kernel._applied_one(Delta(refresh=(element,)), now) == kernel._in_place
            assert kernel.apply(Delta(delete=(element,)), now) == []


def test_with_a_kernel_that_does_not_know_destroying(kernel: NetlinkKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel refuses a message that it does not know with EINVAL, whichever it is.
    for module in ("netlink", "transactions", "codec"):
        monkeypatch.setattr(sys.modules[f"nftban.kernel.{module}"], "NFT_MSG_DESTROYSETELEM", 250, raising=False)
    kernel._deletion = 250
    now = time.time()
    there, missing = many("ban4_all", 10, None)[::2], many("ban4_all", 10, None)[1::2]
    assert kernel.apply(Delta(add=tuple(there)), now) == []
    assert kernel.apply(Delta(delete=(there[0],)), now) == []
    assert kernel._deletion == codec.NFT_MSG_DELSETELEM
    assert kernel.apply(Delta(delete=(*missing, *there[:3])), now) == []
    assert kernel.present(now) == there[3:]


def test_trying_leaves_nothing_behind(kernel: NetlinkKernel) -> None:
    before = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    assert isinstance(trial.updates_in_place(kernel._socket, "nftban"), bool)
    assert subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout == before
    kernel.remove()
    assert trial.updates_in_place(kernel._socket, "nftban") is False


def test_a_trial_that_was_broken_off_does_not_disturb_the_next(kernel: NetlinkKernel) -> None:
    first = trial.updates_in_place(kernel._socket, "nftban")
    assert kernel._socket.transact([r for name in trial.SCRATCH for r in trial._made("nftban", name)]) == []
    assert trial.updates_in_place(kernel._socket, "nftban") == first
    assert kernel.drift() == []


@pytest.mark.parametrize("count", [5, 500])
def test_a_full_set_grows(netns: object, count: int) -> None:
    subprocess.run(["nft", SMALL_SET], check=True)
    now = time.time()
    elements = many("ban4_all", count, now + 100)
    with NetlinkKernel(Layout()) as kernel:
        for element in elements[:5]:
            assert kernel.apply(Delta(add=(element,)), now) == []
        assert kernel.apply(Delta(add=tuple(elements)), now) == []
        assert kernel.present(now) == elements


def test_a_set_that_cannot_grow_names_what_it_did_not_take(netns: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # As before Linux 6.5: the kernel is asked for the size that the set has already, and nothing grows.
    kept = codec.resize_request
    monkeypatch.setattr(codec, "resize_request", lambda payload, size: kept(payload, 3))
    subprocess.run(["nft", SMALL_SET], check=True)
    now = time.time()
    elements = many("ban4_all", 200, now + 100)
    with NetlinkKernel(Layout()) as kernel:
        refused = kernel.apply(Delta(add=tuple(elements)), now)
        assert [r.element for r in refused] == elements[3:]
        assert {(r.errno, r.reason) for r in refused} == {(errno.ENFILE, "set ban4_all is full")}
        assert kernel.present(now) == elements[:3]


def test_overlaps_among_many_are_named_and_the_rest_lands(kernel: NetlinkKernel) -> None:
    now = time.time()
    good = [Element("ban4range_all", i << 8, (i << 8) + 9, now + 500) for i in range(20 * FEWEST)]
    bad = [Element("ban4range_all", (i << 8) + 5, (i << 8) + 7, now + 500) for i in range(0, 20 * FEWEST, 100)]
    refused = kernel.apply(Delta(add=(*good, *bad)), now)
    assert sorted(r.element for r in refused) == bad
    assert {r.errno for r in refused} == {errno.EEXIST}
    assert kernel.present(now) == good


def test_expiry_is_right_however_long_it_takes(kernel: NetlinkKernel) -> None:
    now = time.time()
    elements = many("ban4_all", 3 * STEPS, now + 1000)
    assert kernel.apply(Delta(add=tuple(elements)), now) == []
    assert not kernel.compare(grouped(elements), time.time())


# ---- comparing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*HASHES, *RANGES])
def test_comparison_finds_what_listing_finds(kernel: NetlinkKernel, name: str) -> None:
    now = time.time()
    wanted = many(name, 3 * compare.SMALL, now + 1000)
    assert kernel.apply(Delta(add=tuple(wanted)), now) == []
    assert not kernel.compare(grouped(wanted), now)
    gone = tuple(wanted[100:900:7])
    changed = tuple(Element(e.set, e.first, e.last, None) for e in wanted[::90] if e not in gone)
    strange = tuple(Element(name, e.first - 50, e.first - 50 + (e.last - e.first), None) for e in wanted[5:9])
    for delta in (Delta(delete=gone), Delta(refresh=changed), Delta(add=strange), Delta(delete=tuple(wanted))):
        assert kernel.apply(delta, now) == []
        found = kernel.compare(grouped(wanted), now)
        assert found
        assert found == difference(wanted, kernel.present(now), now)
    assert kernel.apply(kernel.compare(grouped(wanted), now), now) == []
    assert not kernel.compare(grouped(wanted), now)
    assert kernel.present(now) == wanted


def test_a_range_with_another_end_is_seen(kernel: NetlinkKernel) -> None:
    now = time.time()
    wanted = many("ban4range_all", 3 * compare.SMALL, now + 1000)
    first = wanted[700]
    shorter = Element(first.set, first.first, first.last - 1, first.until)
    there = [shorter if e is first else e for e in wanted]
    assert kernel.apply(Delta(add=tuple(there)), now) == []
    delta = kernel.compare(grouped(wanted), now)
    assert (delta.add, delta.delete, delta.refresh) == ((first,), (shorter,), ())


def test_big_sets_are_listed_only_where_something_is_unwanted(
    kernel: NetlinkKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    wanted = many("ban4_all", 2000, now + 1000)
    assert kernel.apply(Delta(add=tuple(wanted)), now) == []
    counts = compare.Comparison(kernel._socket, DEFAULT, kernel.present).counts()
    if counts["ban4_all"] is None:
        pytest.skip("this kernel does not tell how many elements a set holds")
    assert counts["ban4_all"] == 2000
    listings: list[str] = []
    dump = NetfilterSocket.dump

    def noted(self: NetfilterSocket, request: codec.Request) -> list[bytes]:
        listings.append(codec.attributes(request.payload[4:])[1][1].rstrip(b"\0").decode())
        return dump(self, request)

    monkeypatch.setattr(NetfilterSocket, "dump", noted)
    assert not kernel.compare(grouped(wanted), now)
    assert kernel.apply(Delta(delete=tuple(wanted[:9])), now) == []
    assert kernel.compare(grouped(wanted), now).add == tuple(wanted[:9])
    assert "ban4_all" not in listings
    assert kernel.apply(Delta(add=(*wanted[:9], Element("ban4_all", 77, 77))), now) == []
    # It may be one that has just timed out ...
    assert not kernel.compare(grouped(wanted), now, {"ban4_all": 1})
    assert "ban4_all" not in listings
    # ... or not.
    assert [e.first for e in kernel.compare(grouped(wanted), now).delete] == [77]
    assert "ban4_all" in listings


# ---- what the kernel can answer ----------------------------------------------------------------------------------


def test_enobufs_tiny_receive_buffer(netns: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "BUFFER_BYTES", 2048)
    now = time.time()
    with NetlinkKernel(Layout()) as kernel:
        with NetlinkKernel(Layout()) as maker:
            maker._socket.room(1 << 20)
            maker.create()
        for name in ("ban4_all", "ban4range_all"):
            wanted = many(name, 2 * compare.SMALL, now + 1000)
            assert kernel.apply(Delta(add=tuple(wanted)), now) == []
            assert kernel.compare(grouped(wanted), now) == Delta(), name
            assert kernel.apply(Delta(delete=tuple(wanted[::300])), now) == []
            assert kernel.compare(grouped(wanted), now).add == tuple(wanted[::300])
            assert kernel.apply(Delta(delete=tuple(wanted)), now) == []
        # Every refusal is named, though most of the kernel's words got lost.
        spans = [Element("ban4range_all", i, i + 1, now + 100) for i in range(10, 310)]
        refused = kernel.apply(Delta(add=tuple(spans)), now)
        assert len(refused) + len(kernel.present(now)) == 300
        assert {r.errno for r in refused} == {errno.EEXIST}


def test_ebusy_a_set_in_use(kernel: NetlinkKernel) -> None:
    (refusal,) = kernel._socket.transact([trial._deletion("nftban", "ban4_all")])
    assert refusal.errno == errno.EBUSY
    error = wire.kernel_error(refusal.errno, "set ban4_all")
    assert "a rule still uses it" in error.advice
    assert kernel.drift() == []


def test_eintr_a_listing_that_changes_under_way(kernel: NetlinkKernel) -> None:
    # nf_tables marks listings of rules, not of elements, and only where they take more than one datagram.
    rules = "".join(f"add rule inet busy each ip saddr 192.0.2.{i % 250} counter\n" for i in range(3000))
    text = f"add table inet busy\nadd chain inet busy each\n{rules}"
    subprocess.run(["nft", "-f", "-"], check=True, input=text, text=True)
    request = codec.Request(NFT_MSG_GETRULE, codec.NLM_F_DUMP, codec.general() + codec.string(1, "busy"))
    assert len(kernel._socket.dump(request)) == 3000
    stop = threading.Event()

    def disturb() -> None:
        with NetlinkKernel(DEFAULT) as other:
            while not stop.is_set():
                other.apply(Delta(add=(Element("ban6_all", 7, 7),)), 0.0)
                other.apply(Delta(delete=(Element("ban6_all", 7, 7),)), 0.0)

    thread = threading.Thread(target=disturb)
    thread.start()
    interrupted, given_up = False, False
    until = time.monotonic() + 30
    try:
        while not (interrupted and given_up) and time.monotonic() < until:
            number = kernel._socket._numbers(1)
            kernel._socket._send(codec.message(request, number))
            for part in kernel._socket._parts(number):
                interrupted |= bool(part.flags & codec.NLM_F_DUMP_INTR)
                if part.type == codec.NLMSG_DONE:
                    break
            try:
                assert len(kernel._socket.dump(request)) == 3000
            except KernelError as e:
                assert e.errno == errno.EINTR
                given_up = True
    finally:
        stop.set()
        thread.join()
    assert interrupted
    assert given_up
    assert len(kernel._socket.dump(request)) == 3000


def test_eperm_without_the_capability(kernel: NetlinkKernel) -> None:
    now = time.time()
    element = Element("ban4_all", 7, 7)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = b"?"
        try:
            ctypes.CDLL(None).setuid(65534)
            os.setresuid(65534, 65534, 65534)
            with NetlinkKernel(DEFAULT) as ours:
                for delta in (Delta(add=(element,)), Delta(refresh=(element,)), Delta(delete=(element,))):
                    with pytest.raises(PermissionNeededError):
                        ours.apply(delta, now)
                with pytest.raises(PermissionNeededError):
                    ours.compare(grouped([element]), now)
            status = b"!"
        finally:
            os.write(write, status)
            os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"!"
    os.close(read)
    os.waitpid(child, 0)
    assert kernel.present(now) == []


def test_find_after_the_fast_way(kernel: NetlinkKernel) -> None:
    now = time.time()
    element = DEFAULT.place(Prefix.parse("2001:db8::7"), ALL, now + 60)
    assert kernel.apply(Delta(add=(element,)), now) == []
    (found,) = kernel.find(Prefix.parse("2001:db8::7"), now)
    assert found.element == element
