"""The lab itself: every real server starts, answers, logs what the filters rely on, and nothing is left behind."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest
from lab.clients import SMTPS, SUBMISSION, Client
from lab.dns import Dns
from lab.namespaces import CLIENT_PREFIXES, SERVER4, Namespaces
from lab.postfix import MAILBOX, POSTSCREEN_PORT, Postfix
from lab.sshd import USER, Sshd
from lab.syslog import Syslog

ZEN = "zen.spamhaus.org"


def ask(machines: Namespaces, server: str, name: str, kind: str = "A") -> list[str]:
    """The answers as text, or the response code; asked from the server's network."""
    query = dns.message.make_query(name, kind)
    response = machines.server.call(lambda: dns.query.udp(query, server, timeout=5))
    found = [str(data) for rrset in response.answer for data in rrset]
    return sorted(found) or [dns.rcode.to_text(response.rcode())]


def drop(machines: Namespaces, source: str) -> None:
    """Have the server's kernel drop an address's packets, as a ban does."""
    for command in (
        ["nft", "add", "table", "inet", "lab"],
        ["nft", "add chain inet lab in { type filter hook prerouting priority raw; }"],
        ["nft", f"add rule inet lab in ip saddr {source} drop"],
    ):
        machines.server.run(command)


def test_dnsbl_listings_are_served_and_replaced(machines: Namespaces, dns: Dns) -> None:
    listed, test_point = f"5.113.0.203.{ZEN}", f"2.0.0.127.{ZEN}"
    assert ask(machines, dns.resolver, listed) == ["NXDOMAIN"]
    dns.relist(ZEN, {"203.0.113.5": ["127.0.0.4", "127.0.0.10"], "2001:db8:1::5": ["127.0.0.2"]})
    assert ask(machines, dns.resolver, listed) == ["127.0.0.10", "127.0.0.4"]
    nibbles = ".".join("2001:0db8:0001:0000:0000:0000:0000:0005".replace(":", "")[::-1])
    assert ask(machines, dns.resolver, f"{nibbles}.{ZEN}") == ["127.0.0.2"]
    dns.relist(ZEN, {"203.0.113.5": ["127.255.255.254"]})
    assert ask(machines, dns.resolver, listed) == ["127.255.255.254"]
    assert ask(machines, dns.resolver, test_point) == ["127.0.0.2"]
    assert ask(machines, dns.resolver, f"1.0.0.127.{ZEN}") == ["NXDOMAIN"]


def test_reverse_names(machines: Namespaces, dns: Dns) -> None:
    assert ask(machines, dns.resolver, "200.113.0.203.in-addr.arpa", "PTR") == ["mx200.example.org."]
    assert ask(machines, dns.resolver, "mx200.example.org") == ["203.0.113.200"]
    assert ask(machines, dns.resolver, "5.113.0.203.in-addr.arpa", "PTR") == ["NXDOMAIN"]


def test_unconfirmed_and_silent_names(machines: Namespaces, folder: Path) -> None:
    liars = {"203.0.113.6": "liar.example.com"}
    with Dns(machines.server, folder / "dns", {ZEN: {}}, {}, unconfirmed=liars, silent=["dead.example"]) as running:
        assert ask(machines, running.resolver, "6.113.0.203.in-addr.arpa", "PTR") == ["liar.example.com."]
        assert ask(machines, running.resolver, "liar.example.com") == ["NXDOMAIN"]
        sock = machines.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            query = dns.message.make_query("x.dead.example", "A")
            sock.sendto(query.to_wire(), (running.resolver, 53))
            control = dns.message.make_query("liar.example.com", "A")
            sock.sendto(control.to_wire(), (running.resolver, 53))
            sock.settimeout(5)
            assert dns.message.from_wire(sock.recv(4096)).id == control.id  # the only answer, though asked for last
            assert not select.select([sock], [], [], 0.2)[0]


@pytest.mark.parametrize("source", ["203.0.113.1", "2001:db8:1::1"])
def test_postfix_logs_the_misbehaving(machines: Namespaces, postfix: Postfix, source: str) -> None:
    client = Client(machines, source)
    at = rf"\[{re.escape(source)}\]"
    behaviours: tuple[tuple[Callable[[], object], str], ...] = (
        (client.lone_dot, rf"non-SMTP command from unknown{at}: \.$"),
        (lambda: client.empty_lines(25), rf"too many errors after (?:CONNECT|UNKNOWN) from unknown{at}"),
        (lambda: client.unknown_commands(25), rf"too many errors after UNKNOWN from unknown{at}"),
        (client.http, rf"non-SMTP command from unknown{at}: GET / HTTP/1.1"),
        (
            client.tls_bytes,
            rf"lost connection after \w+ from unknown{at}|non-SMTP command from unknown{at}: \\026\\003",
        ),
        (client.pipelined, rf"improper command pipelining after EHLO from unknown{at}"),
        (client.rcpt_reject, rf"NOQUEUE: reject: RCPT from unknown{at}: 554 5\.7\.1 .*Relay access denied"),
        (client.hang_up, rf"lost connection after CONNECT from unknown{at}"),
        (client.sasl_guess, rf"submission/smtpd\[\d+\]: warning: unknown{at}: SASL PLAIN authentication failed"),
    )
    for number, (misbehave, pattern) in enumerate(behaviours, 1):
        misbehave()
        postfix.log.wait_for(pattern)
        postfix.log.wait_for(rf"disconnect from unknown{at} ", count=number)


def test_postfix_tells_right_from_wrong_passwords(machines: Namespaces, postfix: Postfix) -> None:
    client = Client(machines, "198.51.100.2")
    for number, port in enumerate((25, SUBMISSION, SMTPS), 1):
        for mechanism in ("PLAIN", "LOGIN"):
            assert client.sasl_guess(port, mechanism=mechanism)[:3] == "535"
            failed = rf"\[198\.51\.100\.2\]: SASL {mechanism} authentication failed: authentication failure"
            postfix.log.wait_for(failed, count=number)
        assert client.sasl_login(port)[:3] == "235"
        postfix.log.wait_for(r"disconnect from unknown\[198\.51\.100\.2\] .* auth=1 ", count=number)


def test_postfix_delivers_and_asks_the_dnsbl(machines: Namespaces, postfix: Postfix, dns: Dns) -> None:
    assert Client(machines, "203.0.113.200").deliver()[:3] == "250"
    postfix.log.wait_for(rf"to=<{MAILBOX}>, .*status=sent")
    assert postfix.log.matching(r"client=mx200\.example\.org\[203\.0\.113\.200\]")
    dns.relist(ZEN, {"203.0.113.4": ["127.0.0.4"]})
    assert "blocked using" in Client(machines, "203.0.113.4").rcpt_reject(MAILBOX)


def test_postscreen_and_dnsblog(machines: Namespaces, postfix: Postfix, dns: Dns) -> None:
    dns.relist(ZEN, {"203.0.113.4": ["127.0.0.4"]})
    Client(machines, "203.0.113.4").pregreet()
    postfix.log.wait_for(r"PREGREET 19 after \S+ from \[203\.0\.113\.4\]:\d+: EHLO spam\.example")
    postfix.log.wait_for(rf"dnsblog\[\d+\]: addr 203\.0\.113\.4 listed by domain {ZEN} as 127\.0\.0\.4")
    assert Client(machines, "203.0.113.5").banner(POSTSCREEN_PORT).startswith("220")


@pytest.mark.parametrize("format", ["traditional", "iso"])
def test_syslog_envelopes(machines: Namespaces, folder: Path, format: str) -> None:
    envelope = {
        "traditional": r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d mail ",
        "iso": r"^20\d\d-\d\d-\d\dT[\d:.]+\S+ mail ",
    }
    with (
        Syslog(machines.server, folder / "syslog", format) as syslog,
        Dns(machines.server, folder / "dns", {ZEN: {}}, {}),
        Postfix(machines.server, folder / "postfix", syslog=True),
    ):
        Client(machines, "203.0.113.3").lone_dot()
        syslog.mail.wait_for(envelope[format] + r"postfix/smtpd\[\d+\]: warning: non-SMTP command")


@pytest.mark.parametrize("source", ["203.0.113.1", "2001:db8:1::1"])
def test_sshd_guesses_and_logins(machines: Namespaces, sshd: Sshd, syslog: Syslog, source: str) -> None:
    client = Client(machines, source)
    by = rf"from {re.escape(source)} port \d+ ssh2"
    assert client.ssh_guess(tries=3) == 255
    syslog.auth.wait_for(rf"Failed password for {USER} {by}", count=3)
    assert client.ssh_guess("admin") == 255
    syslog.auth.wait_for(rf"Failed password for invalid user admin {by}")
    client.http(22)
    syslog.auth.wait_for(rf"banner exchange: Connection from {re.escape(source)} port \d+: invalid format")
    assert client.ssh_login() == 0
    syslog.auth.wait_for(rf"Accepted password for {USER} {by}")
    assert client.ssh(USER, None, "-i", str(sshd.user_key)).returncode == 0
    syslog.auth.wait_for(rf"Accepted publickey for {USER} {by}")


def test_open_sessions_live_until_their_packets_are_dropped(machines: Namespaces, postfix: Postfix, sshd: Sshd) -> None:
    client = Client(machines, "203.0.113.7", timeout=1)
    with client.open_session() as smtp, client.ssh_session() as ssh:
        assert ssh.stdin is not None and ssh.stdout is not None
        assert smtp.alive()
        drop(machines, client.source)
        assert not smtp.alive(0.5)
        ssh.stdin.write("still there?\n")
        assert not select.select([ssh.stdout], [], [], 0.5)[0]
        with pytest.raises(TimeoutError):
            client.banner()
        assert Client(machines, "203.0.113.8").banner().startswith("220")
        ssh.kill()


def test_the_machine_is_not_changed(machines: Namespaces, sshd: Sshd) -> None:
    assert str(machines.folder) in machines.server.run(["getent", "passwd", USER]).stdout
    assert str(machines.folder) not in Path("/etc/passwd").read_text()
    links = subprocess.run(["ip", "-br", "address"], capture_output=True, text=True, check=True).stdout
    assert SERVER4 not in links and CLIENT_PREFIXES[0] not in links


def test_a_killed_test_leaves_no_process(folder: Path) -> None:
    """SIGKILL gives no chance to clean up: the kernel must."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    code = (
        "import sys; from pathlib import Path; from lab.namespaces import Namespaces\n"
        "n = Namespaces(Path(sys.argv[1]))\n"
        "p = n.server.popen(['sleep', 'infinity'])\n"
        "print(p.pid, flush=True); p.wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    ) as test:
        assert test.stdout is not None
        sleeper = os.pidfd_open(int(test.stdout.readline()))
        assert not select.select([sleeper], [], [], 0)[0]
        test.kill()
        assert select.select([sleeper], [], [], 10)[0]  # readable: the process has ended
        os.close(sleeper)
