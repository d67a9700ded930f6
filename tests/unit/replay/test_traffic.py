"""Which lines are an address's, and which mail was accepted."""

from __future__ import annotations

from nftban.replay.traffic import JOINED, Mail, Traffic
from nftban.sources.chunks import Chunk

NOW = 1_800_000_000.0


def chunk(*lines: str) -> Chunk:
    return Chunk("mail.log", "".join(f"{line}\n" for line in lines).encode(), True)


def test_an_address_is_found_whole_and_counts_once_in_a_line() -> None:
    traffic = Traffic(["192.0.2.1", "192.0.2.10", "2001:db8::1"], [])
    seen = traffic.chunk(
        chunk(
            "connect from unknown[192.0.2.1]",
            "HELO [192.0.2.1] from unknown[192.0.2.1]",
            "connect from unknown[192.0.2.10] not 192.0.2.100",
            "1192.0.2.1 192.0.2.1.7 fe80:2001:db8::1 2001:db8::15",
            "rip:192.0.2.1, lip=[2001:db8::1]:25",
            "192.0.2.1",
            "Relay access denied to 192.0.2.1.",
        ),
        NOW,
    )
    assert seen.lines == {0: 5, 1: 1, 2: 1}


def test_mail_is_accepted_when_the_queue_manager_has_it() -> None:
    client = "2026-11-20T08:00:00+00:00 mail postfix/smtpd[1]: {}: client=x.example[192.0.2.1]"
    queued = "2026-11-20T08:00:01+00:00 mail postfix/qmgr[1]: {}: from=<a@b>, size=1, nrcpt=1 (queue active)"
    traffic, mail = Traffic(["192.0.2.1"], []), Mail()
    first = traffic.chunk(chunk(client.format("AAAAA1"), client.format("BBBBB2"), queued.format("AAAAA1")), NOW)
    assert [each.queue for each in mail.accepted(first)] == [b"AAAAA1"]
    then = traffic.chunk(chunk(queued.format("BBBBB2"), client.format("CCCCC3")), NOW)
    assert [each.queue for each in mail.accepted(then)] == [b"BBBBB2"]
    late = traffic.chunk(chunk("x" * JOINED, queued.format("CCCCC3")), NOW)
    assert mail.accepted(late) == ()


def test_a_line_that_only_tells_of_a_client_is_no_mail() -> None:
    traffic, mail = Traffic(["192.0.2.1"], []), Mail()
    told = "mail app: from=AAAAA1 client said: AAAAA1: hello [192.0.2.1]"
    seen = traffic.chunk(chunk(told, "mail postfix/qmgr[1]: AAAAA1: from=<a@b>, size=1"), NOW)
    assert mail.accepted(seen) == ()


def test_lines_are_counted_to_the_ban_that_holds_then() -> None:
    day = 1_795_161_600.0  # 2026-11-20T08:00:00Z
    traffic = Traffic(["192.0.2.1"], [{0: [(day + 10, day + 20), (day + 30, day + 40)]}, {}])
    lines = [f"2026-11-20T08:00:{second:02d}+00:00 mail app: 192.0.2.1" for second in (5, 15, 16, 25, 35, 45)]
    assert traffic.chunk(chunk(*lines), NOW).stopped == [{(0, 0): 2, (0, 1): 1}, {}]
    whole = [line.replace("08:00", "08:10") for line in lines]
    long = Traffic(["192.0.2.1"], [{0: [(day, day + 86400)]}])
    assert long.chunk(chunk(*whole), NOW).stopped == [{(0, 0): 6}]
