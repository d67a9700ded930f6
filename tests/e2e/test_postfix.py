"""The main job on a real Postfix: its log lines, a real DNSBL server, the real kernel, and the clients' packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab.clients import Client
from lab.dns import Dns
from lab.namespaces import Namespaces
from lab.nftban import Nftban, eventually
from lab.postfix import Postfix

XBL, PBL, ERROR = "127.0.0.4", "127.0.0.10", "127.255.255.254"
LISTED, HOME, ASKED_WRONG, CLEAN, NEIGHBOUR = (f"203.0.113.{n}" for n in (200, 201, 202, 203, 204))
"""All have a confirmed PTR name, so that only what the zones say differs."""


def settings(postfix: Postfix, more: str = "") -> str:
    return f"""
[dns]
servers = ["127.0.0.1"]
[jail.postfix]
logpath = "{postfix.log.path}"
{more}
[jail.sshd]
logpath = "/nowhere/auth.log"
"""


@pytest.fixture
def nftban(machines: Namespaces, folder: Path, dns: Dns, postfix: Postfix) -> Iterator[Nftban]:
    with Nftban(machines.server, folder / "nftban", settings(postfix)) as running:
        yield running


def test_every_misbehaviour_counts_one_session_once(machines: Namespaces, nftban: Nftban) -> None:
    misdeeds: dict[str, Callable[[Client], object]] = {
        "198.51.100.1": lambda c: c.lone_dot(),
        "198.51.100.2": lambda c: c.empty_lines(25),
        "198.51.100.3": lambda c: c.unknown_commands(3),
        "198.51.100.4": lambda c: c.unknown_commands(25),
        "198.51.100.5": lambda c: c.http(),
        "198.51.100.6": lambda c: c.tls_bytes(),
        "198.51.100.8": lambda c: c.rcpt_reject(),
        "198.51.100.9": lambda c: c.sasl_guess(25),
        "198.51.100.10": lambda c: c.sasl_guess(587, mechanism="LOGIN"),
        "198.51.100.11": lambda c: c.sasl_guess(465),
        "198.51.100.12": lambda c: c.pregreet(),
        "2001:db8:1:5::1": lambda c: c.lone_dot(),
    }
    for address, misbehave in misdeeds.items():
        misbehave(Client(machines, address))
    for address in misdeeds:
        eventually(lambda a=address: nftban.score(a)[0], f"{address} has offended")  # type: ignore[misc]
    assert {a: nftban.score(a)[0] for a in misdeeds} == dict.fromkeys(misdeeds, 1)


def test_a_refused_recipient_counts_beside_what_is_not_smtp(machines: Namespaces, nftban: Nftban) -> None:
    """Pipelining ahead of the replies, and relaying: two misdeeds in one session, three lines about them."""
    Client(machines, "198.51.100.7").pipelined()
    eventually(lambda: nftban.score("198.51.100.7")[0] == 2, "both have counted")
    (watched,) = nftban.json("why", "198.51.100.7")["watched"]
    first, second = (o["line"] for o in watched["offences"])
    assert "improper command pipelining" in first and "NOQUEUE: reject" in second


def test_good_clients_are_not_held_responsible(machines: Namespaces, nftban: Nftban, postfix: Postfix) -> None:
    good = Client(machines, NEIGHBOUR)
    assert good.deliver().startswith("250")
    assert good.sasl_login(587).startswith("235")
    postfix.log.wait_for(rf"disconnect from .*\[{NEIGHBOUR}\].*auth=1")
    bad = Client(machines, CLEAN)
    bad.lone_dot()
    # The log is read in order: when the later line was counted, the earlier ones were seen.
    eventually(lambda: nftban.score(CLEAN)[0], "the lone dot is counted")
    assert nftban.score(NEIGHBOUR) == (0, 0)
    assert nftban.json("why", NEIGHBOUR)["login"]["user"] == "" or nftban.json("why", NEIGHBOUR)["login"]


def test_a_listed_client_is_banned_sooner_and_its_packets_are_dropped(
    machines: Namespaces, nftban: Nftban, dns: Dns
) -> None:
    dns.relist("zen.spamhaus.org", {LISTED: [XBL]})
    listed, clean = Client(machines, LISTED, timeout=2), Client(machines, CLEAN)
    open_session = listed.open_session()
    assert open_session.alive()
    for n in (1, 2):
        clean.lone_dot()
        listed.lone_dot()
        eventually(lambda n=n: nftban.score(CLEAN)[0] == n, f"{n} offences of the clean one")  # type: ignore[misc]
    nftban.await_ban(LISTED)
    assert not nftban.banned(CLEAN), "the same two offences, but nobody lists it"

    assert not open_session.alive(timeout=1), "an open connection of a banned client must stop"
    with pytest.raises(TimeoutError):
        listed.banner()
    assert Client(machines, NEIGHBOUR).banner().startswith("220")
    (entry,) = nftban.json("query", LISTED)["entries"]
    assert entry["set"] == "ban4_mail"
    assert entry["packets"] > 0

    for n in (3, 4, 5):
        clean.lone_dot()
        eventually(lambda n=n: nftban.score(CLEAN)[0] == n, f"{n} offences of the clean one")  # type: ignore[misc]
    assert not nftban.banned(CLEAN)
    clean.lone_dot()
    nftban.await_ban(CLEAN)


def test_a_dynamic_range_counts_nothing_where_customers_log_in(machines: Namespaces, nftban: Nftban, dns: Dns) -> None:
    dns.relist("zen.spamhaus.org", {HOME: [PBL]})
    home, clean = Client(machines, HOME), Client(machines, CLEAN)
    for n in range(1, 6):
        for client in (home, clean):
            client.sasl_guess(587)
            eventually(lambda c=client, n=n: nftban.score(c.source) == (n, n), f"{n} points")  # type: ignore[misc]
    assert not nftban.banned(HOME) and not nftban.banned(CLEAN)
    (watched,) = nftban.json("why", HOME)["watched"]
    assert any(e["codes"] == [PBL] for e in watched["listings"]), "it was asked, and it is on the list"
    assert any("not counted" in part["reason"] for part in watched["parts"])
    for client in (home, clean):
        client.sasl_guess(587)
        nftban.await_ban(client.source)


def test_a_zone_that_answers_an_error_is_not_used_and_bans_nobody(
    machines: Namespaces, nftban: Nftban, dns: Dns
) -> None:
    dns.relist("zen.spamhaus.org", {ASKED_WRONG: [ERROR], LISTED: [XBL]})
    client = Client(machines, ASKED_WRONG)
    for n in range(1, 6):
        client.lone_dot()
        eventually(lambda n=n: nftban.score(ASKED_WRONG) == (n, n), f"{n} points")  # type: ignore[misc]
    zone = next(z for z in nftban.json("status")["zones"] if z["zone"] == "zen.spamhaus.org")
    assert zone["state"] == "blocked"
    assert ERROR in zone["why"]
    # What the zone says now is not evidence against anybody.
    listed = Client(machines, LISTED)
    for n in range(1, 4):
        listed.lone_dot()
        eventually(lambda n=n: nftban.score(LISTED) == (n, n), f"{n} points, none from the zone")  # type: ignore[misc]
    assert not nftban.banned(ASKED_WRONG) and not nftban.banned(LISTED)


def test_a_ban_ends_by_itself(machines: Namespaces, folder: Path, dns: Dns, postfix: Postfix) -> None:
    dns.relist("zen.spamhaus.org", {LISTED: [XBL]})
    with Nftban(machines.server, folder / "nftban", settings(postfix, 'bantime = "3s"')) as nftban:
        client = Client(machines, LISTED, timeout=1)
        client.lone_dot()
        client.lone_dot()
        nftban.await_ban(LISTED)
        with pytest.raises(TimeoutError):
            client.banner()
        # Its next SYN is retried by the kernel after 1, 3, 7 seconds: one that comes after the end is let in.
        assert Client(machines, LISTED, timeout=10).banner().startswith("220")
        assert not nftban.banned(LISTED)
        eventually(lambda: nftban.json("why", LISTED)["bans"][0]["ended"], "the store notes the end")
        assert nftban.json("why", LISTED)["bans"][0]["ended"]["how"] == "expired"


def test_bans_stand_without_the_daemon_and_come_back_with_it(machines: Namespaces, nftban: Nftban, dns: Dns) -> None:
    dns.relist("zen.spamhaus.org", {LISTED: [XBL]})
    client = Client(machines, LISTED, timeout=1)
    client.lone_dot()
    client.lone_dot()
    nftban.await_ban(LISTED)
    before = nftban.json("list")["bans"]
    assert nftban.stop() == 0
    with pytest.raises(TimeoutError):
        client.banner()
    assert nftban.cli("query", LISTED).returncode == 0, "without a daemon the kernel is asked directly"
    machines.server.run(["nft", "flush", "ruleset"])
    assert client.banner().startswith("220")
    nftban.start()
    with pytest.raises(TimeoutError):
        client.banner()
    after = nftban.json("list")["bans"]
    assert after == before


def test_a_killed_daemon_loses_no_line(machines: Namespaces, nftban: Nftban) -> None:
    client = Client(machines, CLEAN)
    client.lone_dot()
    eventually(lambda: nftban.score(CLEAN)[0] == 1, "the first is counted")
    eventually(lambda: all(j["last"] for j in nftban.json("status")["jobs"] if j["id"] == "cursors"), "cursor saved")
    nftban.process.kill()
    nftban.process.wait(10)
    for _ in range(6):
        client.lone_dot()
    nftban.start()
    nftban.await_ban(CLEAN)


def test_why_shows_the_lines_the_answers_and_the_sum(
    machines: Namespaces, nftban: Nftban, dns: Dns, postfix: Postfix
) -> None:
    dns.relist("zen.spamhaus.org", {LISTED: [XBL]})
    client = Client(machines, LISTED)
    client.lone_dot()
    client.http()
    nftban.await_ban(LISTED)
    ban = nftban.json("why", LISTED)["bans"][0]
    assert sum(part["points"] for part in ban["parts"]) == ban["score"] == 6 == ban["threshold"]
    logged = postfix.log.lines
    assert len(ban["offences"]) == 2
    assert all(o["line"] in logged and o["source"] == str(postfix.log.path) for o in ban["offences"])
    text = nftban.cli("why", LISTED).stdout
    for expected in ("BANNED", "zen.spamhaus.org", XBL, "non-SMTP command from", "mx200.example.org", "ban4_mail"):
        assert expected in text, text


def test_the_seed_configuration_works_as_it_is(machines: Namespaces, folder: Path, dns: Dns) -> None:
    files = {
        "filter.d/postfix-502.conf": """[INCLUDES]
before = common.conf

[Definition]
failregex = reject: RCPT from (.*)\\[<HOST>\\]: 502 5.5.2
            reject: RCPT from (.*)\\[<HOST>\\]: 502 5.5.2
ignoreregex =
""",
        "jail.local": f"""[postfix-502]
enabled  = true
port     = smtp,ssmtp,submission
filter   = postfix-502
logpath  = {folder}/mail.log
maxretry = 10
""",
    }
    # Postfix gives 502 5.5.2 to a recipient where a policy says so: the shape of line this filter was written for.
    policy = {
        "smtpd_recipient_restrictions": "check_recipient_access inline:{{ bad@example.net = 502 5.5.2 No }}, reject"
    }
    with ExitStack() as stack:
        postfix = stack.enter_context(Postfix(machines.server, folder / "postfix", policy))
        (folder / "mail.log").symlink_to(postfix.log.path)
        quiet = '[jail.postfix]\nenabled = false\n[jail.sshd]\nenabled = false\n[dns]\nservers = ["127.0.0.1"]\n'
        nftban = stack.enter_context(Nftban(machines.server, folder / "nftban", quiet, files=files))
        (jail,) = nftban.json("status")["jails"]
        assert (jail["name"], jail["maxretry"]) == ("postfix-502", 10)
        client = Client(machines, CLEAN, timeout=2)
        for n in range(1, 10):
            client.rcpt_reject("bad@example.net")
            eventually(lambda n=n: nftban.score(CLEAN)[0] == n, f"{n} rejects")  # type: ignore[misc]
        assert not nftban.banned(CLEAN)
        client.rcpt_reject("bad@example.net")
        nftban.await_ban(CLEAN)
        for port in (25, 465, 587):
            with pytest.raises(TimeoutError):
                client.connect(port)
        client.connect(2525).close()
