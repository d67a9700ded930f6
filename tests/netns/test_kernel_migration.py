"""From an older or another program's table to ours: bans are kept, no packet slips through, the rest is removed.

A stream of packets from a banned address runs while create() works; one that arrives proves a gap.  That it would is
shown by a change with a gap.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from nftban.kernel import layout as layout_module
from nftban.kernel import objects
from nftban.kernel.layout import DEFAULT, Layout, Log, Scope, ruleset_text
from nftban.kernel.netlink import NetlinkKernel
from nftban.prefixes import Prefix
from nftban.records import Delta, Element

if TYPE_CHECKING:
    from tests.netns.conftest import NetworkNamespace

pytestmark = pytest.mark.usefixtures("netns")

BANS = ("192.0.2.7", "198.51.100.0/24", "203.0.112.0/23", "2001:db8::7", "2001:db8:1::/64", "2001:db8:8000::/33")
SERVER = ("192.0.2.1", 5353)
PATIENCE = 10.0
# Sends until its standard input ends; says that it has begun.
SENDER = """
import socket, select, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind((sys.argv[1], 0))
client.sendto(b"banned", ("192.0.2.1", 5353))
print(flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(20):
        client.sendto(b"banned", ("192.0.2.1", 5353))
"""

OLDER = {
    "no counter": (r"\t\tcounter\n", ""),
    "a smaller size": (r"size \d+", "size 5000"),
    "no size": (r"\t\tsize \d+\n", ""),
    "another gc-interval": (r"gc-interval 60s", "gc-interval 10s"),
    "interval sets instead of hash sets": (r"\t\tsize \d+\n\t\tflags timeout", "\t\tflags interval,timeout"),
    "a default timeout": (r"\t\tcounter\n", "\t\tcounter\n\t\ttimeout 1d\n"),
    "another hook": (r"prerouting priority raw", "prerouting priority -150"),
}


def nft(*arguments: str, text: str | None = None) -> str:
    return subprocess.run(["nft", *arguments], check=True, capture_output=True, text=True, input=text).stdout


def load(text: str) -> None:
    nft("-f", "-", text=text)


def bans(layout: Layout = DEFAULT, scope: str = "all") -> tuple[Element, ...]:
    until = time.time() + 3600
    return tuple(sorted(layout.place(Prefix.parse(ban), scope, until) for ban in BANS))


def assert_kept(kernel: NetlinkKernel, elements: tuple[Element, ...], within: float = 1) -> None:
    """The same elements with the same ends, but for some seconds."""
    present = kernel.present(time.time())
    assert present == list(elements)
    for have, want in zip(present, elements, strict=True):
        assert have.until is not None
        assert want.until is not None
        assert abs(have.until - want.until) < within


@dataclass
class Stream:
    """Packets from a banned address, and a socket where they must not arrive."""

    server: socket.socket

    def sent(self) -> int:
        """How many have come to this machine so far."""
        found = re.search(r"counter packets (\d+)", nft("list", "table", "inet", "before"))
        assert found
        return int(found[1])

    def await_more(self, packets: int = 200) -> None:
        until, target = time.monotonic() + PATIENCE, self.sent() + packets
        while self.sent() < target:
            assert time.monotonic() < until, "the stream has stopped"

    def arrived(self) -> int:
        count = 0
        self.server.setblocking(False)
        while True:
            try:
                self.server.recv(100)
            except BlockingIOError:
                return count
            count += 1


@pytest.fixture
def stream(client: NetworkNamespace) -> Iterator[Stream]:
    """To be used by tests that have banned 192.0.2.7 before it begins: `with`."""
    load("""
        table inet before {
            chain first {
                type filter hook ingress device server priority -600
                ip saddr 192.0.2.7 counter
            }
        }
    """)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(SERVER)
        yield Stream(server)


@contextmanager
def sending(client: NetworkNamespace, stream: Stream) -> Iterator[None]:
    with client:
        sender = subprocess.Popen(
            [sys.executable, "-c", SENDER, "192.0.2.7"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    with sender:
        assert sender.stdout
        sender.stdout.readline()
        stream.await_more()
        yield
        stream.await_more()
        sender.communicate()


def test_the_stream_would_show_a_gap(client: NetworkNamespace, stream: Stream) -> None:
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        kernel.apply(Delta(add=bans()), time.time())
        with sending(client, stream):
            kernel.remove()
            stream.await_more()
            kernel.create()
            kernel.apply(Delta(add=bans()), time.time())
        assert stream.arrived() > 0


@pytest.mark.parametrize("name", OLDER)
def test_an_older_definition_is_replaced_without_a_gap(client: NetworkNamespace, stream: Stream, name: str) -> None:
    older = re.sub(*OLDER[name], ruleset_text(DEFAULT))
    assert older != ruleset_text(DEFAULT)
    wanted = bans()
    with NetlinkKernel(DEFAULT) as kernel:
        load(older)
        for element in wanted:
            (prefix,) = DEFAULT.prefixes(element)
            interval = DEFAULT.address_sets[element.set].interval or "interval sets" in name
            nft(f"add element inet nftban {element.set} {{ {prefix if interval else prefix.address} timeout 1h }}")
        with sending(client, stream):
            drift = kernel.drift()
            assert drift
            assert kernel.create() == drift
            assert kernel.drift() == []
        assert stream.arrived() == 0
        assert_kept(kernel, wanted)
        assert kernel.find(Prefix.parse("192.0.2.7"), time.time())[0].packets > 0
        assert kernel.create() == []
        nft("flush ruleset")
        kernel.create()
        fresh = nft("-s", "list", "ruleset")
        nft("flush ruleset")
        load(older)
        kernel.create()
        assert sorted(nft("-s", "list", "ruleset").splitlines()) == sorted(fresh.splitlines())


def test_sets_replaced_again_and_again_without_a_gap(
    client: NetworkNamespace, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = bans()
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        assert kernel.apply(Delta(add=wanted), time.time()) == []
        with sending(client, stream):
            for size in range(20):
                monkeypatch.setattr(layout_module, "HASH_SIZE", layout_module.HASH_SIZE + size)
                objects.intended.cache_clear()
                assert bool(kernel.create()) == bool(size)
                stream.await_more()
        assert stream.arrived() == 0
        assert_kept(kernel, wanted)
    objects.intended.cache_clear()


def test_options_changed_again_and_again_without_a_gap(client: NetworkNamespace, stream: Stream) -> None:
    layouts = [
        DEFAULT,
        replace(DEFAULT, ingress=("server",)),
        replace(DEFAULT, ingress=("lo", "server"), log=Log("nftban: ")),
        replace(DEFAULT, ingress=("lo",), reject=("smtp", "all")),
        Layout(log=Log("banned ")),
    ]
    wanted = bans()
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        assert kernel.apply(Delta(add=wanted), time.time()) == []
    with sending(client, stream):
        for layout in layouts * 4:
            with NetlinkKernel(layout) as kernel:
                kernel.create()
                assert kernel.drift() == []
                stream.await_more()
    assert stream.arrived() == 0
    with NetlinkKernel(layouts[-1]) as kernel:
        assert_kept(kernel, wanted)


def test_many_elements_are_kept() -> None:
    until = time.time() + 3600
    wanted = tuple(
        Element(name, i, i, until) for name in ("ban4_all", "ban6_all") for i in range(1 << 24, (1 << 24) + 50_000)
    )
    with NetlinkKernel(DEFAULT) as kernel:
        load(re.sub(*OLDER["a smaller size"], ruleset_text(DEFAULT)).replace("size 5000", "size 150000"))
        assert kernel.apply(Delta(add=wanted), time.time()) == []
        assert kernel.create()
        assert kernel.drift() == []
        # It takes its time to list so many, and what is left is counted from before that.
        assert_kept(kernel, wanted, within=30)


def test_scopes_that_have_gone_go_and_new_ones_come() -> None:
    older = Layout(scopes=(Scope("mail", (25, 2525)), Scope("web", (80,))))
    newer = Layout(scopes=(Scope("mail", (25, 465)), Scope("ssh", (22,))))
    with NetlinkKernel(older) as kernel:
        kernel.create()
        for scope in ("mail", "web"):
            assert kernel.apply(Delta(add=bans(older, scope)), time.time()) == []
    with NetlinkKernel(newer) as kernel:
        drift = kernel.drift()
        for words in ("chain scope_web is not ours", "set ban4_web is not ours", "set ports_web is not ours",
                      "chain scope_ssh is missing", "set ports_mail holds the ports [25, 2525]"):  # fmt: skip
            assert words in drift
        assert kernel.create() == drift
        assert kernel.drift() == []
        assert_kept(kernel, bans(newer, "mail"))
    assert "web" not in nft("list", "ruleset")


FOREIGN = """
table inet nftban {
    counter hits {
    }
    quota much {
        over 1 mbytes
    }
    limit slow {
        rate 10/second
    }
    set strangers {
        type ipv4_addr
        elements = { 192.0.2.1, 192.0.2.2 }
    }
    map where {
        type ipv4_addr : verdict
        elements = { 192.0.2.1 : jump aside }
    }
    map counted {
        type ipv4_addr : counter
        elements = { 192.0.2.1 : "hits" }
    }
    chain aside {
        ip saddr @strangers accept
        jump {
            counter name hits
        }
    }
    chain beside {
        type filter hook input priority 0
        jump aside
        ip saddr vmap @where
        ip saddr { 192.0.2.1, 192.0.2.3 } accept
        counter name ip saddr map @counted
    }
    chain scope_ssh {
        type filter hook output priority 0; policy drop;
        jump aside
    }
    chain prerouting {
        ip saddr { 192.0.2.1, 192.0.2.9 } accept
        ip saddr vmap @where
    }
    set ban4_ssh {
        type mark
        elements = { 1, 2 }
    }
    map ban4net24_ssh {
        type ipv4_addr : verdict
        elements = { 192.0.2.1 : goto aside }
    }
    set ports_ssh {
        type ifname
        elements = { "lo" }
    }
}
"""


@pytest.mark.parametrize("before", ["nothing", "ours", "dormant"])
def test_what_others_left_in_our_table_is_named_and_removed(before: str) -> None:
    kept: tuple[Element, ...] = ()
    with NetlinkKernel(DEFAULT) as kernel:
        foreign = FOREIGN
        if before != "nothing":
            kernel.create()
            fresh = nft("-s", "list", "ruleset")
            kept = bans()
            assert kernel.apply(Delta(add=kept), time.time()) == []
            # In a whole table the other half of the foreign one is refused: those names are taken.
            foreign = foreign[: foreign.index("    chain scope_ssh")] + "}\n"
        else:
            fresh = ""
        load(foreign)
        if before == "dormant":
            nft("add table inet nftban { flags dormant; }")
        drift = kernel.drift()
        for what in ("chain aside", "chain beside", "set strangers", "set where", "set counted", "object hits",
                     "object much", "object slow"):  # fmt: skip
            assert f"{what} is not ours" in drift
        if before == "nothing":
            assert {"chain scope_ssh", "set ban4_ssh", "set ban4net24_ssh", "set ports_ssh"} <= {
                words.partition(" differs")[0] for words in drift
            }
        assert kernel.create() == drift
        assert kernel.drift() == []
        assert_kept(kernel, kept)
        if before == "nothing":
            listed = nft("-s", "list", "ruleset")
            kernel.remove()
            kernel.create()
            fresh = nft("-s", "list", "ruleset")
            assert sorted(listed.splitlines()) == sorted(fresh.splitlines())
        else:
            kernel.apply(Delta(delete=kept), time.time())
            assert nft("-s", "list", "ruleset") == fresh


def test_entries_without_a_place_are_counted() -> None:
    older = re.sub(*OLDER["interval sets instead of hash sets"], ruleset_text(DEFAULT))
    load(older)
    nft("add element inet nftban ban4_all { 192.0.2.7, 192.0.2.16-192.0.2.20, 192.0.2.255 }")
    nft("add element inet nftban ban4net24_all { 192.0.2.0/24, 198.51.100.0/25, 203.0.113.0 }")
    with NetlinkKernel(DEFAULT) as kernel:
        assert kernel.create()[-2:] == [
            "set ban4_all has no place for 1 of its entries",
            "set ban4net24_all has no place for 1 of its entries",
        ]
        present = [(e.set, str(Prefix(4, e.first, 32).address)) for e in kernel.present(time.time())]
    assert present == [
        ("ban4_all", "192.0.2.7"), ("ban4_all", "192.0.2.255"),
        ("ban4net24_all", "192.0.2.0"), ("ban4net24_all", "203.0.113.0"),
    ]  # fmt: skip


def test_an_enlarged_set_stays_as_large() -> None:
    with NetlinkKernel(DEFAULT) as kernel:
        kernel.create()
        wide = nft("-s", "list", "set", "inet", "nftban", "ban4_all").replace("size 1049599", "size 2000000")
        nft("flush chain inet nftban prerouting; delete set inet nftban ban4_all")
        load(wide)
        assert kernel.create() == ["the rules of chain prerouting are not ours"]
        assert "size 2000000" in nft("list", "set", "inet", "nftban", "ban4_all")
