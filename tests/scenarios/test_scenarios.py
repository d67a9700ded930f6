"""Runs every *.scenario beside this file: what is logged when, what DNS says then, and who must be banned.

A scenario has settings as TOML, more files beside them where it needs some, each after a line `--- NAME`, and after a
line `---` its course, a step a line: seconds since its start, a verb, and the rest.  `#` begins a remark.  Time stands
still between the steps; steps of one time happen at once, and a log line does not wait for the verifications that the
one before it began.

    log FILE TEXT                 FILE gets a line; date and host are put before it
    storm N FILE TEXT             N lines; {address} in them is another one of 198.18.0.0/15 each, {n} counts them
    dns ZONE ADDRESS CODE...      the zone lists the address from now on; no code: it lists it no longer
    dns ZONE behaves MODE         answer (as it should), SERVFAIL, REFUSED, drop, ... (demo.dnsbl_server.Mode)
    dns ZONE ttl LISTED CLEAR     seconds for which its answers hold from now on
    ptr ADDRESS [NAME]            its name from now on, with the way back; without NAME it has none
    name NAME TYPE [VALUE]        the name's records of that type from now on (A, AAAA, PTR, MX, TXT)
    do expire|reconcile|reverify|test         that job of the daemon runs; test: of the zones that are due
    ban ADDRESS SECONDS, unban ADDRESS        what an admin does
    banned ADDRESS SCOPE KEY=VALUE...         score, points (of DNS and offences, in the order of the parts), left
                                              (seconds), prefix, origin, jail, listed (zones, with * where the log
                                              said it); and the kernel holds it
    free ADDRESS                  neither the daemon nor the kernel bans it
    watched ADDRESS JAIL SCORE    not banned; what the jail holds against it
    spared ADDRESS JAIL SCORE     the jail's points would do, but it is spared
    unknown ADDRESS               no jail holds anything against it
    asked ZONE ADDRESS N          how often the zone was asked about the address so far
    queries DOMAIN N              how many questions there were about names in the domain
    count NAME N                  one of the daemon's counters
    past ADDRESS HOW...           how its bans ended, the newest first; "live" for one that has not
    why ADDRESS TEXT              TEXT is among the reasons of its live bans or of what is held against it
    not-why ADDRESS TEXT          it is not
    zone ZONE STATE               its state (nftban.verify.health.State)
    event KIND TEXT               the last event of this kind has this text in it
    events KIND N                 so many events of this kind were reported
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from demo.dnsbl_server import Mode

from nftban.prefixes import Prefix
from nftban.records import Answer
from tests.unit.daemon.stage import NOW, Stage, on_stage

FOLDER = Path(__file__).parent


@dataclass
class Step:
    line: int
    at: float
    verb: str
    rest: str


@dataclass
class Scenario:
    """files: text by name; the settings are one of them."""

    name: str
    files: dict[str, str]
    steps: list[Step] = field(default_factory=list)


def read(path: Path) -> Scenario:
    scenario = Scenario(path.stem, {})
    name = "nftban.toml"
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if text.startswith("---"):
            name = text[3:].strip()
        elif name:
            scenario.files[name] = scenario.files.get(name, "") + text + "\n"
        elif text and not text.startswith("#"):
            at, verb, *rest = text.split(None, 2)
            scenario.steps.append(Step(number, float(at), verb, "".join(rest)))
    assert scenario.steps, f"{path} has no steps"
    return scenario


SCENARIOS = [read(path) for path in sorted(FOLDER.glob("*.scenario"))]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario, tmp_path: Path) -> None:
    async def play(stage: Stage) -> None:
        player = Player(stage)
        for step in scenario.steps:
            where = f"{scenario.name}.scenario:{step.line}: {step.at:g} {step.verb} {step.rest}"
            try:
                await player.take(step)
            except AssertionError as e:
                raise AssertionError(f"{where}\n{e}") from None
            except Exception as e:
                raise RuntimeError(where) from e
            assert stage.pipeline.counters["errors"] == 0, f"{where}\nan error in the pipeline"
        await stage.pipeline.settle()

    on_stage(tmp_path, scenario.files, play)


def test_there_are_scenarios_and_each_expects_something() -> None:
    assert len(SCENARIOS) >= 60
    for scenario in SCENARIOS:
        assert {"banned", "free", "watched", "spared"} & {step.verb for step in scenario.steps}, scenario.name


def test_a_wrong_expectation_fails_and_names_its_line(tmp_path: Path) -> None:
    steps = [Step(7, 0, "log", "mail.log postfix/smtpd[1]: lost connection after UNKNOWN from unknown[203.0.113.7]")]
    settings = (
        '[dnsbl]\nreverse = false\nzones = ["zen.spamhaus.org"]\n'
        '[jail.postfix]\nfilter = "postfix"\nlogpath = "mail.log"\nmaxretry = 1\n'
    )
    for verb, rest in [
        ("free", "203.0.113.7"),
        ("banned", "203.0.113.8 all"),
        ("banned", "203.0.113.7 all score=2"),
        ("banned", "203.0.113.7 smtp"),
        ("watched", "203.0.113.7 postfix 1"),
        ("spared", "203.0.113.7 postfix 1"),
        ("asked", "zen.spamhaus.org 203.0.113.7 1"),
        ("past", "203.0.113.7"),
        ("count", "bans 2"),
        ("event", "ban 203.0.113.8"),
        ("why", "203.0.113.7 SPF"),
        ("not-why", "203.0.113.7 lost connection"),
        ("zone", "zen.spamhaus.org blocked"),
        ("queries", "zen.spamhaus.org 1"),
    ]:
        folder = tmp_path / f"{verb} {rest}".replace(" ", "-")
        folder.mkdir()
        with pytest.raises(AssertionError, match=r"made\.scenario:9: "):
            test_scenario(Scenario("made", {"nftban.toml": settings}, [*steps, Step(9, 0, verb, rest)]), folder)


class Player:
    """Plays the steps."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def take(self, step: Step) -> None:
        at = NOW + step.at
        assert at >= self.stage.now, "time does not go back"
        if at > self.stage.now or step.verb not in ("log", "storm"):
            await self.stage.pipeline.settle()
        self.stage.wait(at - self.stage.now)
        verb = getattr(self, f"_{step.verb.replace('-', '_')}")
        done = verb(*_words(step))
        if asyncio.iscoroutine(done):
            await done

    # what happens

    def _log(self, file: str, text: str) -> None:
        self.stage.log(text, file)

    def _storm(self, count: str, file: str, text: str) -> None:
        for n in range(int(count)):
            self.stage.log(text.format(address=f"198.18.{n >> 8}.{n & 255}", n=n), file)

    def _dns(self, zone: str, address: str, *codes: str) -> None:
        dns = self.stage.dns
        if address == "behaves":
            dns.behave(zone, Mode(" ".join(codes)))
            return
        known = dns.zones.get(zone) or dns.add_zone(zone)
        if address == "ttl":
            known.ttl, known.negative_ttl = map(int, codes)
        elif codes:
            known.add(address, codes)
        else:
            known.remove(address)

    def _ptr(self, address: str, name: str | None = None) -> None:
        if name is None:
            self.stage.dns.add_name(ip_address(address).reverse_pointer, "PTR")
        else:
            self.stage.dns.add_reverse(address, name)

    def _name(self, name: str, rdtype: str, value: str = "") -> None:
        values = [value] if value else []
        self.stage.dns.add_name(name, rdtype, *([json.dumps(value)] if value and rdtype == "TXT" else values))

    async def _do(self, job: str) -> None:
        if job == "test":
            await self.stage.house.verifier.test_zones(self.stage.now)
        else:
            await getattr(self.stage.daemon, job)()

    async def _ban(self, address: str, seconds: str) -> None:
        done = await self.stage.call("ban", prefixes=[address], seconds=float(seconds))
        assert not done["refused"], done["refused"]

    async def _unban(self, address: str) -> None:
        done = await self.stage.call("unban", prefixes=[address])
        assert done["unbanned"], f"{address} was not banned"

    # what must be

    async def _banned(self, address: str, scope: str, *wanted: str) -> None:
        stage = self.stage
        why = await stage.call("why", address=address)
        live = [b for b in why["bans"] if b["ended"] is None and b["scope"] == scope]
        assert live, f"it is not banned in scope {scope}: {why['bans'] or why['watched'] or why['note']}"
        found = stage.house.kernel.find(Prefix.parse(address), stage.now)
        assert [f for f in found if f.scope == scope], "the kernel does not have it"
        ban = live[0]
        told = {**ban, "points": ",".join(str(part["points"]) for part in ban["parts"]), "listed": _listed(ban)}
        told["left"] = "for-ever" if ban["until"] is None else f"{ban['until'] - stage.now:g}"
        for key, value in (w.split("=", 1) for w in wanted):
            assert str(told[key]) == value, f"{key} is {told[key]}"

    async def _free(self, address: str) -> None:
        found = self.stage.house.kernel.find(Prefix.parse(address), self.stage.now)
        assert not [f for f in found if f.scope], f"the kernel has {found}"
        covering = self.stage.house.bans.covering(Prefix.parse(address))
        assert not [s for s in covering if s.ban.holds(self.stage.now)], f"banned by {covering}"

    async def _watched(self, address: str, jail: str, score: str) -> None:
        await self._free(address)
        rule = await self._held(address, jail, score)
        assert re.match(r"-?\d+ of \d+ points", rule), f"not watched: {rule}"

    async def _spared(self, address: str, jail: str, score: str) -> None:
        await self._free(address)
        rule = await self._held(address, jail, score)
        assert "spares" in rule, f"not spared: {rule}"

    async def _held(self, address: str, jail: str, score: str) -> str:
        watched = (await self.stage.call("why", address=address))["watched"]
        held = [w for w in watched if w["jail"] == jail]
        assert held, f"jail {jail} holds nothing against it"
        assert str(held[0]["score"]) == score, f"the score is {held[0]['score']}: {held[0]['parts']}"
        return str(held[0]["rule"])

    async def _unknown(self, address: str) -> None:
        await self._free(address)
        watched = (await self.stage.call("why", address=address))["watched"]
        assert not watched, f"held against it: {watched}"

    def _asked(self, zone: str, address: str, count: str) -> None:
        (name,) = (z.query_name(Prefix.parse(address)) for z in self.stage.assembly.zones if z.display == zone)
        assert self.stage.dns.count(name) == int(count), f"asked {self.stage.dns.count(name)} times"

    def _queries(self, domain: str, count: str) -> None:
        assert self.stage.dns.count(domain) == int(count), f"asked {self.stage.dns.count(domain)} times"

    def _count(self, *words: str) -> None:
        *name, count = words
        assert self.stage.pipeline.counters[" ".join(name)] == int(count), dict(self.stage.pipeline.counters)

    async def _past(self, address: str, *how: str) -> None:
        ended = [s.how or "live" for s in self.stage.house.store.bans_covering(Prefix.parse(address))]
        assert " ".join(ended) == " ".join(how), ended

    async def _reasons(self, address: str) -> list[str]:
        why = await self.stage.call("why", address=address)
        told = [*(b for b in why["bans"] if b["ended"] is None), *why["watched"]]
        return [text for one in told for text in (one["rule"], *(part["reason"] for part in one["parts"]))]

    async def _why(self, address: str, text: str) -> None:
        reasons = await self._reasons(address)
        assert any(text in reason for reason in reasons), reasons

    async def _not_why(self, address: str, text: str) -> None:
        reasons = await self._reasons(address)
        assert reasons, "nothing is known of it"
        assert not any(text in reason for reason in reasons), reasons

    def _zone(self, zone: str, state: str) -> None:
        (found,) = (z for z in self.stage.house.verifier.status(self.stage.now) if z.zone == zone)
        assert found.state == state, f"{found.state}: {found.why}"

    def _event(self, kind: str, text: str) -> None:
        events = self.stage.events(kind)
        assert events and text in events[0], events

    def _events(self, kind: str, count: str) -> None:
        events = self.stage.events(kind)
        assert len(events) == int(count), events


_TEXT_AFTER = {"log": 1, "event": 1, "why": 1, "not-why": 1, "zone": 1, "storm": 2, "name": 2}
"""Verbs whose last argument is a text with blanks of its own, and how many words stand before it."""


def _words(step: Step) -> list[str]:
    return step.rest.split(None, _TEXT_AFTER.get(step.verb, -1))


def _listed(ban: dict[str, Any]) -> str:
    def found() -> Iterator[str]:
        for listing in ban["listings"]:
            if listing["answer"] == Answer.LISTED:
                yield listing["zone"] + "*" * listing["logged"]

    return ",".join(found())
