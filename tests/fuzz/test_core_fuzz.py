"""Properties of the core: it computes what plain sets compute, takes what JSON takes, and of hostile text raises only
the error it names.

The invariants, one each: a PrefixSet is a set of integers; range_prefixes covers exactly and with the fewest; a text is
an address iff the standard library says so; positions() never raises and finds each key's true line; every fault of
a configuration has a line; a record equals itself after JSON; the store gives back what it was given, and its live
bans are what a dict would hold.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import tempfile
import tomllib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nftban.config.load import load
from nftban.config.positions import positions
from nftban.config.schema import Jail, Settings
from nftban.config.words import ban_seconds, port_list, seconds
from nftban.errors import ConfigError
from nftban.plain import from_plain, to_plain
from nftban.prefixes import BITS, Prefix, PrefixSet, range_prefixes
from nftban.protect.host import ssh_connection
from nftban.records import (
    Ban,
    Cursor,
    Element,
    Event,
    Evidence,
    History,
    Login,
    LogLine,
    Offence,
    Origin,
    Refused,
    Suspect,
    Verdict,
)
from nftban.store.sqlite import Store

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Prefixes and sets

# Small universes at both ends of each family, and around the IPv4-mapped block, where the edges are.
ORIGINS = [(4, 0), (4, (1 << 32) - 128), (6, 0), (6, (1 << 128) - 128), (6, (0xFFFF << 32) - 64), (6, (1 << 48) - 64)]
MAPPED = range(0xFFFF << 32, 1 << 48)


@st.composite
def universes(draw: st.DrawFn) -> tuple[int, list[Prefix], list[Prefix]]:
    """A family and two lists of its prefixes, all within 128 addresses."""
    family, origin = draw(st.sampled_from(ORIGINS))
    one = st.builds(
        lambda at, size: Prefix(family, origin + at, BITS[family] - size), st.integers(0, 127), st.integers(0, 6)
    ).filter(lambda p: p.family == family)
    return family, draw(st.lists(one, max_size=8)), draw(st.lists(one, max_size=8))


def addresses(*prefixes: Prefix) -> set[int]:
    return {n for p in prefixes for n in range(p.first, p.last + 1)}


def unmapped(plain: set[int], family: int) -> set[int]:
    return {n for n in plain if family == 4 or n not in MAPPED}


def members(made: PrefixSet, family: int) -> set[int]:
    return {n for first, last in made.ranges(family) for n in range(first, last + 1)}


@given(universes())
@quick
def test_a_prefix_set_is_a_set(drawn: tuple[int, list[Prefix], list[Prefix]]) -> None:
    family, one, other = drawn
    a, b = PrefixSet(one), PrefixSet(other)
    plain_a, plain_b = addresses(*one), addresses(*other)
    for made, plain in ((a, plain_a), (a.union(b), plain_a | plain_b), (a.minus(b), plain_a - plain_b)):
        assert members(made, family) == plain
        assert bool(made) == bool(plain)
        ranges = made.ranges(family)
        assert all(first <= last for first, last in ranges)
        assert all(after[0] > before[1] + 1 for before, after in pairwise(ranges))
        assert addresses(*made.prefixes()) == unmapped(plain, family)
        for p in (*one, *other):
            assert made.contains(p) == (addresses(p) <= plain)
            assert made.overlaps(p) == bool(addresses(p) & plain)
    assert (a == b) == (plain_a == plain_b)
    assert a.union(b) == b.union(a)
    assert (a == b) <= (hash(a) == hash(b))


@given(universes())
@quick
def test_prefixes_meet_as_their_addresses_do(drawn: tuple[int, list[Prefix], list[Prefix]]) -> None:
    _, one, other = drawn
    for p in one:
        for q in other:
            assert p.contains(q) == (addresses(q) <= addresses(p))
            assert p.overlaps(q) == q.overlaps(p) == bool(addresses(p) & addresses(q))
            assert (p == q) == (addresses(p) == addresses(q))


@given(st.sampled_from(ORIGINS), st.integers(0, 127), st.integers(0, 127))
@quick
def test_range_prefixes_covers_exactly_with_the_fewest(origin: tuple[int, int], one: int, other: int) -> None:
    family, start = origin
    first, last = start + min(one, other), start + max(one, other)
    made = list(range_prefixes(family, first, last))
    wanted = unmapped(set(range(first, last + 1)), family)
    assert addresses(*made) == wanted
    assert sum(p.last - p.first + 1 for p in made) == len(wanted)
    assert made == sorted(made)
    # A cover by disjoint prefixes is the smallest iff no two of them are the halves of one.
    for before, after in pairwise(made):
        assert before.length != after.length or before.widened(before.length - 1) != after.widened(after.length - 1)


@given(st.sampled_from([4, 6]), st.data())
@quick
def test_a_prefix_is_its_text_and_its_bytes(family: int, data: st.DataObject) -> None:
    bits = BITS[family]
    first, length = data.draw(st.integers(0, (1 << bits) - 1)), data.draw(st.integers(0, bits))
    prefix = Prefix(family, first, length)
    assert Prefix.parse(str(prefix)) == prefix
    assert Prefix.from_packed(prefix.packed, prefix.length) == prefix
    if prefix.family == family:
        network = (ipaddress.IPv4Network if family == 4 else ipaddress.IPv6Network)((first, length), strict=False)
        assert (prefix.first, prefix.last) == (int(network.network_address), int(network.broadcast_address))
        assert ipaddress.ip_address(prefix.address) == network.network_address
    for wider in range(prefix.length + 1):
        assert prefix.widened(wider).contains(prefix)


texts_of_addresses = (
    st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda a: a.exploded)
    | st.text("0123456789.", max_size=18)
    | st.text("0123456789abcdefF:.", max_size=42)
    | st.lists(st.integers(0, 300), min_size=3, max_size=5).map(lambda n: ".".join(map(str, n)))
    | st.lists(st.text("0123456789abcdef", max_size=5), min_size=2, max_size=9).map(":".join)
    | st.text(max_size=12)
)


@given(texts_of_addresses)
@settings(max_examples=1000, deadline=None)
@example("1.2.3.4")
@example("01.2.3.4")
@example("::1.2.3.4")
@example("::1.2.3.04")
@example("1:2:3:4:5:6:7::")
def test_a_text_is_an_address_iff_the_standard_library_says_so(text: str) -> None:
    assume("%" not in text and "/" not in text and text == text.strip())
    try:
        theirs: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ipaddress.ip_address(text)
    except ValueError:
        theirs = None
    try:
        ours: Prefix | None = Prefix.parse(text)
    except ValueError:
        ours = None
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        mapped = theirs.ipv4_mapped if isinstance(theirs, ipaddress.IPv6Address) else None
        assert ours == Prefix(mapped.version if mapped else theirs.version, int(mapped or theirs), ours.bits)


# Configuration

bare = st.text("abcABC019_-", min_size=1, max_size=6)
plain_text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x7f"), max_size=12)
comments = plain_text.map(lambda t: f"#{t}") | st.just("")
basic = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(
    lambda t: json.dumps(t, ensure_ascii=False).replace("\x7f", "\\u007f")
)
literal = plain_text.map(lambda t: "'" + t.replace("'", "") + "'")
multi = st.lists(plain_text | st.sampled_from(["[x]", "a = 1", "# no", '"', '""', '\\"""', "]"]), max_size=4).map(
    lambda ls: '"""' + "\n".join(line.replace("\\", "") if '\\"' not in line else line for line in ls) + '"""'
)
multi_literal = st.lists(plain_text.map(lambda t: t.replace("'", "")), max_size=4).map(
    lambda ls: "'''" + "\n".join(ls) + "'''"
)
scalars = (
    st.integers(-(10**6), 10**6).map(str)
    | st.sampled_from(["true", "false", "1.5", "inf", "nan", "1979-05-27", "07:32:00", "0x1F"])
    | basic
    | literal
    | multi
    | multi_literal
)


def _listed(values: list[str], breaks: list[str]) -> str:
    return "[" + "".join(f"{b}{v}{b}," for v, b in zip(values, breaks, strict=False)) + "]"


gaps = st.lists(st.sampled_from(["", " ", "\n", "\n# ] ' \"\n", "\t\r\n"]), min_size=4, max_size=4)
values = st.recursive(
    scalars,
    lambda inner: (
        st.builds(_listed, st.lists(inner, max_size=4), gaps)
        | st.lists(st.tuples(bare, inner.filter(lambda v: "\n" not in v)), max_size=3, unique_by=lambda kv: kv[0]).map(
            lambda pairs: "{" + ", ".join(f"{k} = {v}" for k, v in pairs) + "}"
        )
    ),
    max_leaves=6,
)
keys = bare | basic.filter(lambda k: "\\" not in k) | literal.filter(lambda k: len(k) > 2)


@st.composite
def toml_texts(draw: st.DrawFn) -> tuple[str, dict[tuple[str | int, ...], int]]:
    """A valid TOML text and the true line of each of its top-level keys and tables' keys."""
    text = ""
    lines: dict[tuple[str | int, ...], int] = {}
    entries = draw(st.lists(st.tuples(keys, values, comments), max_size=5, unique_by=lambda e: _bare(e[0])))
    tables = draw(st.lists(st.tuples(keys, st.tuples(keys, values)), max_size=3, unique_by=lambda t: _bare(t[0])))
    for key, value, comment in entries:
        text += draw(st.sampled_from(["", "\n", "# [a]\n", "  \n"]))
        lines[_bare(key),] = text.count("\n") + 1
        text += f"{draw(st.sampled_from(['', ' ']))}{key} = {value} {comment}\n"
    for name, (key, value) in tables:
        assume((_bare(name),) not in lines)
        lines[_bare(name),] = text.count("\n") + 1
        text += f"[{name}]\n"
        lines[_bare(name), _bare(key)] = text.count("\n") + 1
        text += f"{key}={value}\n"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        assume(False)
    return text, lines


def _bare(key: str) -> str:
    return key[1:-1] if key[0] in "\"'" else key


@given(toml_texts())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_positions_finds_the_true_line_of_every_key(drawn: tuple[str, dict[tuple[str | int, ...], int]]) -> None:
    text, lines = drawn
    found = positions(text)
    assert {path: found.get(path) for path in lines} == lines
    # No name is invented: what begins a path is a key of the parsed document.
    assert {path[0] for path in found} == set(tomllib.loads(text))
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@given(st.text(max_size=60) | st.text("[]{}='\"#\\\n ,.ab1", max_size=60))
@settings(max_examples=500, deadline=None)
def test_positions_survives_any_text(text: str) -> None:
    for line in positions(text).values():
        assert 1 <= line <= text.count("\n") + 1


SETTINGS = {
    name: sorted(field.annotation.model_fields)
    for name, field in Settings.model_fields.items()
    if name not in ("jail", "scopes") and isinstance(field.annotation, type)
} | {"jail.a": sorted(Jail.model_fields), 'jail."b c"': sorted(Jail.model_fields), "scopes": ["all", "web", "x"]}


@st.composite
def configurations(draw: st.DrawFn) -> str:
    """Real tables and settings with any values at all."""
    text = ""
    for table in draw(st.lists(st.sampled_from([*SETTINGS, "typo", "jail"]), max_size=4, unique=True)):
        names = st.sampled_from([*SETTINGS.get(table, []), "typo"])
        wanted = draw(st.lists(st.tuples(names, values), max_size=4, unique_by=lambda nv: nv[0]))
        dotted = draw(st.booleans()) and not text
        text += "" if dotted else f"[{table}]\n"
        text += "".join(f"{table + '.' if dotted else ''}{name} = {value}\n" for name, value in wanted)
    return text


@given(configurations() | st.text(max_size=80))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_configuration_loads_or_every_fault_has_a_line(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nftban.toml")
        path.write_bytes(text.encode())
        try:
            load(path)
        except ConfigError as e:
            assert e.faults
            for fault in e.faults:
                assert 1 <= fault.line <= text.count("\n") + 1, str(fault)
                assert fault.what


@given(st.binary(max_size=80))
@quick
def test_any_bytes_load_or_are_a_configuration_error(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nftban.toml")
        path.write_bytes(raw)
        with contextlib.suppress(ConfigError):
            load(path)


@given(st.text(max_size=20) | st.text("0123456789.smhdwyo ", max_size=12) | st.integers() | st.floats() | st.none())
@settings(max_examples=500, deadline=None)
def test_words_are_in_bounds_or_a_value_error(written: object) -> None:
    with contextlib.suppress(ValueError):
        assert 0 < seconds(written) <= 100 * 31557600
    with contextlib.suppress(ValueError):
        length = ban_seconds(written)
        assert length is None or 0 < length <= 100 * 31557600
    with contextlib.suppress(ValueError):
        ports = port_list(written)
        assert ports and list(ports) == sorted(set(ports)) and 1 <= ports[0] <= ports[-1] <= 65535


@given(st.text())
@quick
def test_ssh_connection_survives_any_text(value: str) -> None:
    peer = ssh_connection(value)
    assert peer is None or value.split()[0].startswith(
        ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", *":abcdefABCDEF")
    )


# Records

any_prefix = st.sampled_from([4, 6]).flatmap(
    lambda f: st.builds(Prefix, st.just(f), st.integers(0, (1 << BITS[f]) - 1), st.integers(0, BITS[f]))
)
st.register_type_strategy(Prefix, any_prefix)
st.register_type_strategy(float, st.floats(allow_nan=False))
KINDS = [LogLine, Cursor, Offence, Login, Suspect, Evidence, History, Verdict, Ban, Element, Refused, Event]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_any_record_survives_json(kind: type[Any]) -> None:
    @given(st.from_type(kind))
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    def survives(record: Any) -> None:
        assert from_plain(kind, json.loads(json.dumps(to_plain(record)))) == record

    survives()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mutilated(draw: st.DrawFn) -> tuple[type[Any], Any]:
    """A record's JSON with one thing in it, at any depth, replaced by something else."""
    kind = draw(st.sampled_from(KINDS))
    plain = to_plain(draw(st.from_type(kind)))
    inside = plain
    while isinstance(inside, dict | list) and inside:
        at = draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        if not isinstance(inside[at], dict | list) or not inside[at] or draw(st.booleans()):
            inside[at] = draw(json_values)
            break
        inside = inside[at]
    return kind, plain


@given(mutilated())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_mutilated_record_is_a_record_or_a_value_error(drawn: tuple[type[Any], Any]) -> None:
    kind, plain = drawn
    with contextlib.suppress(ValueError):
        record = from_plain(kind, plain)
        assert type(record) is kind
        hash(record)


# The store

hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["\x00", "a\x00b", "'; DROP TABLE ban;--", "\x1b]0;x\x07", "\u202e", "\\udcff", "\U0010ffff", "%s{}", "\r\n"]
)
times = st.floats(0, 4e9)


@given(hostile, hostile, hostile, any_prefix, times, st.none() | times)
@settings(max_examples=60, deadline=None)
def test_the_store_gives_back_hostile_text_as_it_was(
    a: str, b: str, c: str, prefix: Prefix, since: float, until: float | None
) -> None:
    offence = Offence(a, b, prefix, since, facts=((a, b), (b, c)), listed=((c, a),), line=c, source=a)
    ban = Ban(prefix, a, since, until, Origin.LOG, b, c, offences=(offence,))
    login, event = Login(prefix, since, a, b, c), Event(since, a, b, prefix)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.db")
        store = Store(path)
        placed = store.add_ban(ban)
        store.set_login(login)
        store.set_cursors([(a, Cursor(1, 2, b))])
        store.set_state(b, [a, {c: b}])
        store.add_event(event)
        store.close()
        store = Store(path)
        assert store.detail(placed.id) == ban
        assert store.login(prefix) == login
        assert store.cursor(a) == Cursor(1, 2, b)
        assert store.state(b) == [a, {c: b}]
        assert store.events() == [event]
        assert store.end_ban(prefix, a, since, c) == (until is None or until > since)
        store.close()


near = st.sampled_from(ORIGINS[:4]).flatmap(
    lambda o: st.builds(
        lambda at, size: Prefix(o[0], o[1] + at, BITS[o[0]] - size), st.integers(0, 127), st.integers(0, BITS[o[0]])
    )
)


@given(st.lists(near, max_size=12, unique=True), near)
@settings(max_examples=60, deadline=None)
def test_bans_covering_is_what_overlaps(banned: list[Prefix], asked: Prefix) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "state.db"))
        for n, prefix in enumerate(banned):
            store.add_ban(Ban(prefix, "all", float(n), None, Origin.LOG))
        found = [s.ban.prefix for s in store.bans_covering(asked)]
        store.close()
    assert found == [p for p in reversed(banned) if p.overlaps(asked)]


@dataclass
class Past:
    """What a dict remembers of one ban."""

    until: float | None
    how: str | None = None


class StoreAgainstADict(RuleBasedStateMachine):
    """Any order of placing, ending and expiring, with a clock that only goes forward."""

    keys = st.tuples(st.sampled_from([Prefix.parse(t) for t in ("192.0.2.7", "192.0.2.0/24", "2001:db8::/64")]),
                     st.sampled_from(["mail", "ssh"]))  # fmt: skip

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name, "state.db"))
        self.now = 1000.0
        self.live: dict[tuple[Prefix, str], Past] = {}
        self.past: list[tuple[Prefix, Past]] = []

    def _over(self, key: tuple[Prefix, str], how: str) -> None:
        was = self.live.pop(key)
        expired = was.until is not None and was.until <= self.now
        self.past.append((key[0], replace(was, how="expired" if expired else how)))

    @rule(key=keys, length=st.none() | st.integers(1, 50), passed=st.integers(0, 30))
    def place(self, key: tuple[Prefix, str], length: int | None, passed: int) -> None:
        self.now += passed
        until = None if length is None else self.now + length
        if key in self.live:
            self._over(key, "extended")
        self.live[key] = Past(until)
        self.store.add_ban(Ban(key[0], key[1], self.now, until, Origin.LOG), self.now)

    @rule(key=keys, how=st.sampled_from(["unbanned", "delisted"]))
    def end(self, key: tuple[Prefix, str], how: str) -> None:
        lived = key in self.live and (self.live[key].until is None or (self.live[key].until or 0) > self.now)
        if key in self.live:
            self._over(key, how)
        assert self.store.end_ban(*key, self.now, how) == lived

    @rule()
    def expire(self) -> None:
        over = [key for key, was in self.live.items() if was.until is not None and was.until <= self.now]
        for key in over:
            self._over(key, "expired")
        assert self.store.expire(self.now) == len(over)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(Path(self.folder.name, "state.db"))

    @precondition(lambda self: hasattr(self, "store"))
    @invariant()
    def the_same(self) -> None:
        held = {key for key, was in self.live.items() if was.until is None or was.until > self.now}
        assert {(s.ban.prefix, s.ban.scope) for s in self.store.live_bans(self.now)} == held
        over = [prefix for prefix, was in self.past if was.how == "expired"]
        over += [key[0] for key in self.live if key not in held]
        for prefix in {key[0] for key in self.live} | {p for p, _ in self.past}:
            assert self.store.earlier_bans(prefix, self.now) == over.count(prefix)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestStoreAgainstADict = StoreAgainstADict.TestCase
TestStoreAgainstADict.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
