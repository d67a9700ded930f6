"""Elements against the real kernel: what we write is what nft(8) lists and what we read back."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nftban.kernel import wire
from nftban.kernel.layout import ALL, DEFAULT, Kind, Layout, Scope
from nftban.kernel.netlink import NetlinkKernel
from nftban.kernel.plan import difference
from nftban.kernel.transactions import STEPS
from nftban.prefixes import Prefix, PrefixSet
from nftban.records import Ban, Delta, Element, Origin
from tests.intent import desired

pytestmark = pytest.mark.usefixtures("netns")


@pytest.fixture
def kernel(netns: object) -> Iterator[NetlinkKernel]:
    with NetlinkKernel(DEFAULT) as made:
        made.create()
        yield made


def listed(name: str) -> list[dict[str, Any]]:
    """nft's elements of a set: value as [first, last] addresses, timeout and expires in seconds, packets."""
    text = subprocess.run(
        ["nft", "-j", "list", "set", "inet", "nftban", name], check=True, capture_output=True, text=True
    ).stdout
    made = next(item["set"] for item in json.loads(text)["nftables"] if "set" in item)
    return [_flat(element) for element in made.get("elem", [])]


def _flat(element: Any) -> dict[str, Any]:
    inner: dict[str, Any] = element["elem"] if isinstance(element, dict) and "elem" in element else {"val": element}
    value = inner["val"]
    if isinstance(value, dict) and "prefix" in value:
        network = ipaddress.ip_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")
        ends = [int(network[0]), int(network[-1])]
    elif isinstance(value, dict):
        ends = [int(ipaddress.ip_address(end)) for end in value["range"]]
    else:
        ends = [int(ipaddress.ip_address(value))] * 2
    return {**inner, "val": ends}


def place(text: str, scope: str, until: float | None) -> Element:
    return DEFAULT.place(Prefix.parse(text), scope, until)


def every_kind(until: float | None) -> list[Element]:
    prefixes = (
        "192.0.2.7", "198.51.100.0/24", "203.0.112.0/23", "0.0.0.0/8", "255.255.255.240/28",
        "2001:db8::7", "2001:db8:1::/64", "2001:db8:8000::/33", "::/16", "fffe::/15",
    )  # fmt: skip
    return sorted(place(text, scope.name, until) for scope in DEFAULT.scopes for text in prefixes)


@pytest.mark.parametrize("seconds", [3600, None])
def test_every_kind_of_set_lists_what_was_added(kernel: NetlinkKernel, seconds: int | None) -> None:
    now = time.time()
    until = None if seconds is None else now + seconds
    elements = every_kind(until)
    allowed = [
        Element("allow4", int(ipaddress.ip_address("192.0.2.7")), int(ipaddress.ip_address("192.0.2.9"))),
        Element("allow6", 0, (1 << 128) - 1),
    ]
    assert kernel.apply(Delta(add=(*allowed, *elements)), now) == []
    for spec in DEFAULT.address_sets.values():
        ours = [e for e in (*allowed, *elements) if e.set == spec.name]
        theirs = sorted(listed(spec.name), key=lambda item: item["val"])
        assert [item["val"] for item in theirs] == [[e.first, e.last] for e in ours]
        assert len(ours) == {Kind.RANGE: 3, Kind.ALLOW: 1}.get(spec.kind, 1)
        for item in theirs if spec.bans else []:
            assert item["counter"] == {"packets": 0, "bytes": 0}
            assert item.get("timeout") == seconds
            assert seconds is None or seconds - 60 < item["expires"] <= seconds
    present = kernel.present(now)
    assert present == sorted((*allowed, *elements))
    for element in present:
        expected = until if DEFAULT.address_sets[element.set].bans else None
        assert element.until == (expected if expected is None else pytest.approx(expected, abs=60))


def test_what_nft_adds_is_read_with_its_counter(kernel: NetlinkKernel) -> None:
    ranges = "192.0.2.16-192.0.2.20 timeout 1h, 192.0.2.21-192.0.2.30 timeout 2h, 250.0.0.0-255.255.255.255"
    for line in (
        f"add element inet nftban ban4range_ssh {{ {ranges} }}",
        "add element inet nftban ban4_smtp { 192.0.2.9 counter packets 5 bytes 300 timeout 1h }",
        "add element inet nftban allow4 { 192.0.2.1, 192.0.2.2-192.0.2.3 }",
    ):
        subprocess.run(["nft", line], check=True)
    now = time.time()
    base = int(ipaddress.ip_address("192.0.2.0"))
    assert kernel.present(now) == [
        Element("allow4", base + 1, base + 1),
        Element("allow4", base + 2, base + 3),
        Element("ban4_smtp", base + 9, base + 9),
        Element("ban4range_ssh", base + 16, base + 20),
        Element("ban4range_ssh", base + 21, base + 30),
        Element("ban4range_ssh", 250 << 24, (1 << 32) - 1),
    ]
    (found,) = kernel.find(Prefix.parse("192.0.2.9"), now)
    assert (found.scope, found.packets, found.bytes) == ("smtp", 5, 300)


def test_a_refresh_gives_the_new_expiry_whatever_was_there(kernel: NetlinkKernel) -> None:
    now = time.time()
    elements = every_kind(now + 100)
    assert kernel.apply(Delta(add=tuple(elements[::2])), now) == []
    later = tuple(every_kind(now + 5000))
    assert kernel.apply(Delta(refresh=later), now) == []
    assert [round(e.until or 0) for e in kernel.present(now)] == pytest.approx([round(now + 5000)] * len(later), abs=60)
    assert kernel.apply(Delta(refresh=tuple(every_kind(None))), now) == []
    assert {e.until for e in kernel.present(now)} == {None}
    assert kernel.apply(Delta(refresh=tuple(every_kind(now - 1))), now) == []
    assert kernel.present(now) == []


def test_elements_leave_by_themselves(kernel: NetlinkKernel) -> None:
    now = time.time()
    elements = every_kind(now + 1)
    staying = place("192.0.2.8", ALL, now + 100)
    assert kernel.apply(Delta(add=(*elements, staying)), now) == []
    assert kernel.find(Prefix.parse("192.0.2.7"), now)
    while kernel.present(time.time()) != [staying]:
        assert time.time() < now + 20, "an element of one second is still there after twenty"
    # The kernel counts in ticks of up to 10 ms.
    assert time.time() > now + 0.98
    assert kernel.find(Prefix.parse("192.0.2.7"), now) == []
    assert kernel.apply(Delta(add=tuple(every_kind(time.time() + 100))), time.time()) == []


def test_refused_elements_are_named_and_the_others_land(kernel: NetlinkKernel) -> None:
    now = time.time()
    there = place("10.0.0.0/16", ALL, now + 100)
    assert kernel.apply(Delta(add=(there,)), now) == []
    overlapping = [place("10.0.0.0/15", ALL, now + 100), place("10.0.128.0/17", ALL, now + 100)]
    good = [place(text, ALL, now + 100) for text in ("10.8.0.0/16", "192.0.2.1", "2001:db8::/48")]
    gone = place("192.0.2.99", ALL, None)
    refused = kernel.apply(Delta(add=(*good, *overlapping), delete=(gone,)), now)
    assert sorted(r.element for r in refused) == sorted(overlapping)
    assert {(r.errno, r.reason) for r in refused} == {(17, "File exists")}
    assert kernel.present(now) == sorted([there, *good])


def test_more_than_one_transaction_and_message(kernel: NetlinkKernel) -> None:
    now = time.time()
    hashed = [Element("ban6_all", i << 64 | 1, i << 64 | 1, now + 1000) for i in range(STEPS + 5000)]
    ranges = [Element("ban6range_all", i << 70, (i << 70) + 9, now + 1000) for i in range(3000)]
    overlapping = Element("ban6range_all", 5, 20, now + 1000)
    refused = kernel.apply(Delta(add=(*hashed, *ranges, overlapping)), now)
    assert [r.element for r in refused] == [overlapping]
    assert kernel.present(now) == sorted([*hashed, *ranges])
    assert kernel.apply(Delta(delete=(*hashed, *ranges)), now) == []
    assert kernel.present(now) == []


def test_what_another_process_sends_is_not_heard(kernel: NetlinkKernel) -> None:
    now = time.time()
    port = kernel._socket._socket.getsockname()[0]
    numbers = range(kernel._socket._sequence, kernel._socket._sequence + 20)
    lies = [struct.pack("=IHHII", 36, 2, 0, number, 0) + struct.pack("=i", -1) + bytes(16) for number in numbers]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, wire.NETLINK_NETFILTER) as other:
        for datagram in (b"", b"\xff" * 40, *lies):
            other.sendto(datagram or b"\0", (port, 0))
        element = place("192.0.2.7", ALL, None)
        assert kernel.apply(Delta(add=(element,)), now) == []
        for datagram in lies:
            other.sendto(datagram, (port, 0))
        assert kernel.present(now) == [element]


def test_a_far_expiry_is_cut_to_what_the_kernel_can_hold(kernel: NetlinkKernel) -> None:
    assert kernel.apply(Delta(add=(place("192.0.2.7", ALL, 1e30),)), time.time()) == []
    (element,) = kernel.present(0.0)
    assert element.until is not None
    assert element.until > 500 * 365 * 86400


def _bans() -> st.SearchStrategy[list[Ban]]:
    """Bans that meet: on few addresses, at both ends of the address space."""
    low = st.integers(0, 255)
    four = st.builds(
        lambda top, low, length: Prefix(4, top | low, length),
        st.sampled_from([0, 0xFFFFFF00]), low, st.integers(20, 32),
    )  # fmt: skip
    six = st.builds(
        lambda top, low, length: Prefix(6, top | low << 60, length),
        st.sampled_from([0x20010DB8 << 96, 0xFFFF << 112]), low, st.integers(56, 128),
    )  # fmt: skip
    seconds = st.one_of(st.none(), st.sampled_from([100.0, 200.0, 300.0]))
    return st.lists(
        st.builds(
            lambda prefix, scope, until: Ban(prefix, scope, 0.0, until, Origin.MANUAL),
            st.one_of(four, six), st.sampled_from(["all", "ssh"]), seconds,
        ),
        max_size=12,
    )  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=_bans(), second=_bans())
def test_any_plan_is_taken_and_read_back(netns: object, first: list[Ban], second: list[Ban]) -> None:
    layout = Layout(scopes=(Scope("ssh", (22,)),))
    now = time.time()
    with NetlinkKernel(layout) as kernel:
        kernel.remove()
        kernel.create()
        for bans in (first, second):
            lasting = [Ban(b.prefix, b.scope, now, b.until and now + b.until, b.origin) for b in bans]
            wanted = desired(lasting, PrefixSet(b.prefix for b in bans[:3]), layout, now)
            assert kernel.apply(difference(wanted, kernel.present(now), now), now) == []
            present = kernel.present(now)
            assert present == wanted
            assert [e.until and round(e.until - now, -2) for e in present] == [
                e.until and round(e.until - now, -2) for e in wanted
            ]
            for ban in lasting:
                assert ban.scope in {found.scope for found in kernel.find(ban.prefix, now)}
