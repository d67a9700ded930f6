"""The traffic simulator and the scoreboard: what is written is what servers write, the truth fits, and the judgement's
invariants hold on a small population."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median

import pytest
from traffic import __main__ as command
from traffic import baseline, crowdsec, ours, packages, report, theirs
from traffic.outcome import ALL_PORTS, Outcome, Span
from traffic.population import BEGIN, Population
from traffic.score import Score, median_and_90th, scores
from traffic.simulate import population, simulated, write
from traffic.world import SPAMHAUS, BadHour, Entry, Failed, Fault, World

from nftban.config.load import shipped_rules
from nftban.detect import filterfile
from nftban.detect.filterfile import Filter
from nftban.detect.matcher import Matcher
from nftban.records import Login, LogLine, Offence

SIZE = (3, 1.0, 0.05)
SIZE_OF_JUDGEMENT = (3, 1.0, 0.02)


@pytest.fixture(scope="module")
def small() -> Population:
    return population(*SIZE)


@pytest.fixture(scope="module")
def judged() -> list[Score]:
    people = population(*SIZE_OF_JUDGEMENT)
    counting = ours.run("count only", people, {"judged.toml": ours.WITHOUT_DNS})
    asking = ours.run("nftban", people)
    # A zone that lists everybody is found out at its next test, and whom it got banned is let in.
    assert all(span.until - span.since <= 1800 + 60 for span in asking.bans if span.lied)
    return scores(people, [asking, counting, baseline.run(people)])


# The traffic


def test_the_same_seed_gives_the_same_lines_in_order_of_time(small: Population) -> None:
    first, again = list(simulated(small)), list(simulated(population(*SIZE)))
    assert first == again
    assert len(first) > 3000
    times = [line.time for line in first]
    assert times == sorted(times)
    other = list(islice(simulated(population(4, *SIZE[1:])), 100))
    assert [line.text for line in other] != [line.text for line in first[:100]]


def test_each_kind_of_actor_is_there_and_its_lines_are_its_own(small: Population) -> None:
    seen = {line.actor for line in simulated(small)}
    kinds = {small.actors[number].kind for number in seen}
    assert {"SASL botnet", "IMAP botnet", "SSH guesser", "scanner", "office", "CGNAT", "phone", "monitoring"} <= kinds
    assert {actor.kind for actor in small.actors} >= kinds | {"dot bot", "IPv6 rotator"}
    for line in simulated(small):
        if line.port in (993, 22) and "kex_exchange" not in line.text and "pam_unix(sshd:session)" not in line.text:
            assert line.address in line.text or re.search("check pass|Disconnected|message-id", line.text), line.text


@pytest.mark.parametrize("name", ["postfix", "dovecot", "sshd"])
def test_our_filters_see_offences_of_the_address_that_the_truth_names(small: Population, name: str) -> None:
    compiled = filterfile.load(name, (shipped_rules() / "filters",))
    assert isinstance(compiled, Filter)
    matcher = Matcher(compiled)
    offences, logins = 0, 0
    for line in simulated(small):
        if (line.log == "auth") != (name == "sshd"):
            continue
        found = matcher.match(LogLine("log", line.text), line.time)
        if isinstance(found, Offence):
            offences += 1
            assert str(found.prefix) == line.address, line.text
            assert abs(found.time - line.time) < 1e-3
        elif isinstance(found, Login):
            logins += 1
            assert str(found.prefix) == line.address
            assert small.actors[line.actor].good, line.text
    assert offences > 20
    assert logins > 1


def test_written_files_are_the_stream_with_its_truth(small: Population, tmp_path: Path) -> None:
    count = write(small, tmp_path)
    truth = [json.loads(row) for row in (tmp_path / "truth.jsonl").read_text().splitlines()]
    assert len(truth) == count
    for log in ("mail", "auth"):
        texts = (tmp_path / f"{log}.log").read_text().splitlines()
        assert texts == [line.text for line in simulated(small) if line.log == log]
        assert len(texts) == sum(row["log"] == log for row in truth)
    assert any(row["good"] for row in truth) and any(not row["good"] for row in truth)
    assert set(json.loads((tmp_path / "dns.json").read_text())) == {"listings", "ptr", "faults"}


def test_the_world_changes_with_time_and_has_bad_hours() -> None:
    world = World()
    world.list(SPAMHAUS, "11.2.3.4", Entry("127.0.0.4", 100, 200))
    name = f"4.3.2.11.{SPAMHAUS}"
    assert [world.answer(name, "A", at) for at in (99, 100, 199, 200)] == [(), ("127.0.0.4",), ("127.0.0.4",), ()]
    assert world.answer(f"2.0.0.127.{SPAMHAUS}", "A", 0) == ("127.0.0.2",)
    world.faults = (
        BadHour(SPAMHAUS, Fault.FAILS, 300, 400),
        BadHour(SPAMHAUS, Fault.BLOCKS, 400, 500),
        BadHour(SPAMHAUS, Fault.LISTS_WORLD, 500, 600),
    )
    with pytest.raises(Failed):
        world.answer(name, "A", 300)
    assert world.answer(name, "A", 450) == ("127.255.255.254",)
    assert world.answer(f"9.9.9.9.{SPAMHAUS}", "A", 550) == ("127.0.0.2",)
    assert world.answer(f"9.9.9.9.{SPAMHAUS}", "A", 600) == ()


# The score


def test_figures_of_bans_made_by_hand(small: Population) -> None:
    rows = list(simulated(small))
    guesser = next(a for a in small.actors if a.kind == "SSH guesser" and any(r.actor == a.number for r in rows))
    client = next(a for a in small.actors if a.kind == "office")
    own = [(number, row) for number, row in enumerate(rows) if row.actor == guesser.number]
    third = own[2][1].time
    bans = [
        Span(own[0][1].address, frozenset({22}), third + 1e-3, small.end),
        Span(client.stays[0].address, ALL_PORTS, BEGIN + 60, BEGIN + 180),
        Span(client.stays[0].address, frozenset({993}), BEGIN + 120, BEGIN + 240, lied=True),
        Span(client.stays[0].address, frozenset({22}), BEGIN + 300, BEGIN + 400),
    ]
    outcome = Outcome("by hand", {number for number, _ in own[3:]}, bans)
    (score,) = scores(small, [outcome])
    kind = score.kinds["SSH guesser"]
    assert (kind.banned, kind.to_ban, kind.prevented) == (1, [3], len(own) - 3)
    assert kind.seconds == [pytest.approx(third - own[0][1].time, abs=1e-2)]
    office = score.kinds["office"]
    assert (office.banned, office.lied) == (40, 40)
    assert office.minutes == pytest.approx(40 * 3)  # 60 to 240, once; port 22 is not used there
    assert score.total(True).banned == 40


def test_a_ban_of_a_64_is_its_addresses_ban(small: Population) -> None:
    rotator = next(a for a in small.actors if a.kind == "IPv6 rotator")
    network = rotator.stays[0].address.rsplit(":", 4)[0] + "::/64"
    (score,) = scores(small, [Outcome("x", set(), [Span(network, ALL_PORTS, BEGIN, small.end)])])
    came = any(line.actor == rotator.number for line in simulated(small))
    assert score.kinds["IPv6 rotator"].banned == came


def test_median_and_90th() -> None:
    assert median_and_90th([7]) == (7.0, 7.0)
    assert median_and_90th(list(range(11))) == (5.0, 9.0)


# The judgement


def test_a_zone_that_lies_gets_nobody_banned_who_did_nothing(judged: list[Score]) -> None:
    asking, counting, door = judged
    assert counting.total(True).lied == asking.total(True).lied == 0
    assert door.total(True).lied > asking.total(True).lied  # so there was something to fall for


def test_who_is_never_banned_and_who_always_is(judged: list[Score]) -> None:
    kinds = judged[0].kinds
    for name in (
        "big MTA",
        "small MTA, named",
        "small MTA, generic",
        "small MTA, no name",
        "home",
        "phone",
        "monitoring",
    ):
        assert name not in kinds or kinds[name].banned == 0, name
    for name in ("dot bot", "SASL guesser", "SSH guesser", "user harvester", "IPv6 rotator"):
        kind = kinds[name]
        assert kind.banned == kind.actors, name
        assert kind.actors == 0 or kind.share > 0.5, name
    assert judged[0].total(False).share >= judged[1].total(False).share
    assert judged[0].queries > 0 == judged[1].queries


def test_tables_and_pictures(judged: list[Score]) -> None:
    for text in (report.table(judged), report.attackers(judged), report.to_ban(judged), report.clients(judged)):
        rows = [row.count("|") for row in text.splitlines()]
        assert len(rows) > 3 and len(set(rows)) == 1, text
    assert report.goals(judged) == ""  # fail2ban took no part
    for good in (False, True):
        picture = report.bars(judged, good)
        assert picture.startswith("<svg") and picture.count("<rect") > 3 * len(judged)
        assert "office" in picture or not good


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return Path(request.config.cache.mkdir("judge"))


def test_fail2bans_own_jails_ban_and_unban(cache: Path) -> None:
    root = packages.unpacked("fail2ban", cache) if theirs.PYTHON.exists() else None
    if root is None:
        pytest.skip("fail2ban's package cannot be had here")
    people = population(*SIZE_OF_JUDGEMENT)
    outcome = theirs.run(people, root)
    assert outcome.prevented
    ended = [b for b in outcome.bans if b.until < people.end]
    # Debian's bantime is ten minutes, and counts from the offence, which may be older than the ban.
    assert ended and max(b.until - b.since for b in ended) < 900
    assert 599 < median(b.until - b.since for b in ended) < 700
    rows = list(simulated(people))
    held = {(b.prefix, port) for b in outcome.bans for port in b.ports}
    assert {(rows[n].address, rows[n].port) for n in outcome.prevented} <= held
    (score,) = scores(people, [outcome])
    guessers = [kind for name, kind in score.kinds.items() if name in ("SSH guesser", "SASL guesser") and kind.actors]
    assert guessers and all(kind.banned == kind.actors for kind in guessers)
    score.name = "nftban"  # beside itself: no better, no worse
    text = report.goals([replace(score, name="fail2ban"), score])
    assert "| 100 % of them | **not met** |" in text and "prevented | 0 % | **not met** |" in text


def test_crowdsecs_own_engine_bans_for_four_hours(cache: Path) -> None:
    root = packages.unpacked("crowdsec", cache)
    if root is None:
        pytest.skip("crowdsec's package cannot be had here")
    people = population(*SIZE_OF_JUDGEMENT)
    outcome = crowdsec.run(people, root)
    assert {b.until - b.since for b in outcome.bans if b.until < people.end} == {4 * 3600.0}
    addresses = {line.address for line in simulated(people)}
    assert {b.prefix for b in outcome.bans} <= addresses
    (score,) = scores(people, [outcome])
    guessers = [kind for name, kind in score.kinds.items() if name in ("SSH guesser", "IMAP guesser") and kind.actors]
    assert guessers and all(kind.banned == kind.actors and kind.share > 0.3 for kind in guessers)


def test_alerts_that_began_during_a_ban_are_left_out() -> None:
    alerts = [("11.1.1.1", 50.0, 60.0), ("11.1.1.1", 0.0, 10.0), ("11.1.1.1", 20_000.0, 20_010.0)]
    spans = list(crowdsec.as_spans(alerts, 1e9))
    assert [(s.since, s.until) for s in spans] == [(10.0, 14_410.0), (20_010.0, 34_410.0)]
    assert next(iter(crowdsec.as_spans(alerts, 12.0))).until == 12.0


@pytest.mark.parametrize("tail", ["", ".5", ".61514", ".123456789"])
def test_times_as_go_writes_them(tail: str) -> None:
    assert crowdsec.seconds(f"2026-11-23 00:00:01{tail}+00:00") == pytest.approx(BEGIN + 1 + float(tail or 0), abs=1e-6)


def test_tables_go_between_the_marks(judged: list[Score], tmp_path: Path) -> None:
    page = tmp_path / "judgement.md"
    page.write_text(f"before\n{command.BEGIN_MARK}old\n{command.END_MARK}after\n")
    for _ in range(2):
        command.into_docs(tmp_path, "new", judged)
    assert page.read_text() == f"before\n{command.BEGIN_MARK}\nnew\n\n{command.END_MARK}after\n"
    assert (tmp_path / "judgement-clients.svg").read_text().startswith("<svg")
