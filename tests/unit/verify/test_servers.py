"""Servers: their notation, the system's, the public ones, and the memory for silent ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.verify.servers import (
    FIRST_REST,
    LONGEST_REST,
    SILENCES,
    Server,
    ServerMemory,
    forwarded_to,
    parse_server,
    public_resolver,
    system_servers,
)

A, B = Server("192.0.2.53"), Server("2001:db8::53", 5353)


@pytest.mark.parametrize(
    ("text", "server", "shown"),
    [
        ("192.0.2.53", Server("192.0.2.53"), "192.0.2.53"),
        ("192.0.2.53:53", Server("192.0.2.53"), "192.0.2.53"),
        ("192.0.2.53:5353", Server("192.0.2.53", 5353), "192.0.2.53:5353"),
        ("2001:db8::53", Server("2001:db8::53"), "2001:db8::53"),
        ("[2001:db8::53]", Server("2001:db8::53"), "2001:db8::53"),
        ("[2001:db8::53]:5353", Server("2001:db8::53", 5353), "[2001:db8::53]:5353"),
        ("fe80::1%eth0", Server("fe80::1%eth0"), "fe80::1%eth0"),
    ],
)
def test_notation(text: str, server: Server, shown: str) -> None:
    assert parse_server(text) == server
    assert str(server) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "192.0.2",
        "192.0.2.53:0",
        "192.0.2.53:65536",
        "192.0.2.53:x",
        "[2001:db8::53",
        "[::1]x",
        "[::1]:٣",
    ],
)
def test_bad_servers(text: str) -> None:
    with pytest.raises(ValueError, match="is not a DNS server"):
        parse_server(text)


def test_the_systems_servers(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(
        "# nameserver 192.0.2.1\nsearch example\nnameserver 192.0.2.53\nnameserver\nnameserver localhost\n"
        "nameserver 2001:db8::53 # second\noptions edns0\n"
    )
    assert system_servers(conf) == (Server("192.0.2.53"), Server("2001:db8::53"))
    assert system_servers(tmp_path / "missing") == (Server("127.0.0.1"),)


def test_behind_systemds_stub_its_uplinks_are_seen(tmp_path: Path) -> None:
    uplinks = tmp_path / "resolv.conf"
    assert forwarded_to(Server("127.0.0.53"), uplinks) == ()
    uplinks.write_text("nameserver 8.8.8.8\nnameserver 192.0.2.53\n")
    assert forwarded_to(Server("127.0.0.53"), uplinks) == (Server("8.8.8.8"), Server("192.0.2.53"))
    assert forwarded_to(Server("127.0.0.1"), uplinks) == ()


def test_public_resolvers_of_both_families() -> None:
    assert public_resolver("8.8.8.8") == "Google Public DNS"
    assert public_resolver("1.1.1.1:53") == "Cloudflare"
    assert public_resolver("[2620:fe::fe]:53") == "Quad9"
    assert public_resolver("2620:0119:0035::35") == "OpenDNS"
    assert public_resolver("::ffff:9.9.9.9") == "Quad9"
    assert public_resolver("127.0.0.1") is None
    assert public_resolver("192.0.2.53") is None


def test_a_silent_server_is_asked_last_and_tried_again_by_one_query() -> None:
    memory = ServerMemory([A, B])
    for _ in range(SILENCES):
        assert memory.order(0.0) == (A, B)
        memory.silent(A, 0.0)
    assert memory.order(1.0) == (B, A)
    assert memory.order(FIRST_REST + 1) == (A, B)  # the trial
    assert memory.order(FIRST_REST + 1) == (B, A)  # the others do not wait for it
    memory.silent(A, FIRST_REST + 2)
    assert memory.order(3 * FIRST_REST) == (B, A)  # now it rests twice as long
    assert memory.order(3 * FIRST_REST + 2) == (A, B)
    memory.answered(A)
    assert memory.order(3 * FIRST_REST + 2) == (A, B)


def test_answers_in_between_keep_a_server_awake() -> None:
    memory = ServerMemory([A, B])
    for _ in range(10):
        memory.silent(A, 0.0)
        memory.silent(A, 0.0)
        memory.answered(A)
    assert memory.order(0.0) == (A, B)


def test_a_closed_port_rests_at_once_and_rest_is_bounded() -> None:
    memory = ServerMemory([A])
    now = 0.0
    for _ in range(10):
        memory.closed(A, now)
        assert memory.resting(A, now + 1)
        assert not memory.resting(A, now + LONGEST_REST)
        now += LONGEST_REST
    assert memory.order(now - 1) == (A,), "the only server is asked also while it rests"
