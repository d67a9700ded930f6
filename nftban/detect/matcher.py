"""Log lines against a filter.

Takes a `Filter` and log lines one by one; gives an Offence, a Login, a Logged (something the server itself found
out about a client, no misdeed) or None.
The order is fail2ban's: the date is cut out, prefregex, failregex by search (the first that matches), ignoreregex.
Each sees the text with one newline at its end.  Where the filter says maxlines, they see the last lines together.
Of a line longer than LINE_LIMIT the beginning is matched, ended so that no `$` holds in the middle of client text.
Of a rule that once overran its budget (budget.py), a linear engine (linear.py) says from then on which lines it can
match.  Overrun again, or where that engine has no answer, it is suspended, for a minute at first and longer each time,
and `report` is told; the other rules go on.
Guarantees: no line raises; memory is bounded; time is the log's, never the clock's.
Does not: know what a match means (meaning.py), count over time (windows.py), read files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from nftban.detect.budget import WATCH, Overrun
from nftban.detect.envelope import content
from nftban.detect.filterfile import Filter, Rule
from nftban.detect.fused import fused, placed
from nftban.detect.linear import Possible, guard
from nftban.detect.meaning import Counts, Logged, Meaning, Result
from nftban.detect.multiline import Lines
from nftban.detect.timestamps import DAY, Timestamps
from nftban.records import LogLine

__all__ = ["LINE_LIMIT", "Counts", "Logged", "Matcher"]

LINE_LIMIT = 16_384
SUSPENDED = 60.0
SUSPENDED_MOST = 3600.0
_LAST_DATE = 60.0  # so long a line without a date is of the time of the last that had one
FUSED = 3  # of more rules, prefregex is tried once for all
PLANS = 4096
_CUT = "\ufffd"

Found = tuple[Rule, re.Match[str]]


class Match(NamedTuple):
    """A rule that matches a line, its groups by name, when that was, the line without its date, and that date."""

    rule: Rule
    groups: dict[str, str]
    time: float
    rest: str
    date: float | None = None


class _Plan(NamedTuple):
    """Rules to be tried; fused: the same together with prefregex, or none; placed: the same as they match behind a
    date that is not cut out, with the names of their groups, or none."""

    rules: tuple[Rule, ...]
    fused: tuple[Rule, ...]
    placed: tuple[tuple[Rule, re.Pattern[str], tuple[str, ...]], ...]


class Matcher:
    """One filter over one log; holds the sessions of that log, so each log wants its own."""

    def __init__(
        self, filter: Filter, *, sessions: int = 10_000, report: Callable[[str], None] = lambda _: None
    ) -> None:
        """report: is told, in a sentence, of rules that are suspended and of names that stand for addresses."""
        self.filter = filter
        self.counts = Counts()
        self._meaning = Meaning(filter, self.counts, sessions, report)
        self.timestamps = Timestamps(filter.dates)
        self._lines = Lines(filter.maxlines) if filter.maxlines > 1 else None
        self.last: float | None = None
        """The date of the last line that was something; where an expression reaches over several lines, of any."""
        self._report = report
        self._rest: dict[Rule, tuple[float, float]] = {}  # until when it is suspended, for how long that was
        self._guards: dict[Rule, Possible] = {}  # of those that once overran
        # fail2ban asks ignoreregex before all others where it has far fewer expressions.
        self._ignore_first = bool(filter.ignore) and len(filter.ignore) < len(filter.rules) - 2
        self._prefix = (filter.prefix,) if filter.prefix is not None else ()
        self._both: dict[int, Rule | None] = {}  # by the rule's number, made when first wanted
        self._plans: dict[tuple[int, ...] | None, _Plan] = {}

    def match(self, line: LogLine, now: float, rules: tuple[int, ...] | None = None) -> Result:
        """What this line is; `now` dates lines that have no date and completes those without a year; rules: those of
        the filter's rules, from 0, that can match, where that is known."""
        self.counts.lines += 1
        if rules is None and not self._may_match(line.text):
            return None
        matched = self.search(line.text, line.truncated, now, rules)
        return None if matched is None else self.meaning(line, matched)

    def search(self, text: str, truncated: int, now: float, rules: tuple[int, ...] | None = None) -> Match | None:
        """What of the filter matches this line; rules: those of its rules, from 0, that can (screen.py); the others
        are not tried."""
        if truncated or len(text) > LINE_LIMIT:
            self.counts.oversized += 1
            text = text[:LINE_LIMIT] + _CUT
        date, rest = content(text, self.timestamps, now)
        logged = date
        if logged is None:
            logged = self.last if self.last is not None and self.last > now - _LAST_DATE else now
        elif self._lines is not None:
            self.last = logged
        plan = self._plans.get(rules)
        found = self._search(rest, now, plan if plan is not None else self._planned(rules))
        if found is None:
            return None
        # A date from a clock far ahead would sit in every window for as long.
        return Match(*found, now if logged > now + DAY else logged, rest, date)

    def look(self, text: str, now: float, rules: tuple[int, ...], texts: tuple[tuple[str, ...], ...]) -> Match | None:
        """`search`, of a whole line with its newline: quicker where the line begins with a date that was seen before.

        texts: for each of the rules, of which one is in the line behind such a date; see screen.Wanted.
        """
        date = self.timestamps.again(text, now)
        plan = self._plans.get(rules)
        if plan is None:
            plan = self._planned(rules)
        if date is None or date.time is None or not plan.placed or self._rest or len(text) > LINE_LIMIT:
            return self.search(text[:-1], 0, now, rules)
        try:
            WATCH.begin()
            for (rule, pattern, names), needed in zip(plan.placed, texts, strict=True):
                for each in needed:
                    if each in text:
                        break
                else:
                    if needed:
                        continue
                found = pattern.match(text, date.end)
                if found is not None:
                    WATCH.end()
                    time = date.time if date.time <= now + DAY else now
                    if names:
                        groups = {n: t for n, t in zip(names, found.groups(), strict=True) if t is not None}
                    else:
                        groups = _groups(found)
                    return Match(rule, groups, time, text[date.end : -1], date.time)
            WATCH.end()
        except Overrun:
            return self.search(text[:-1], 0, now, rules)
        except BaseException:
            WATCH.search = 0
            raise
        return None

    def meaning(self, line: LogLine, match: Match) -> Result:
        """What a line is of which `search` found this."""
        self.counts.matched += 1
        result = self._meaning.of(line, match.rule, match.groups, match.time, match.rest)
        if result is not None and match.date is not None and self._lines is None:
            self.last = match.date  # which other lines come here, a screen says
        return result

    @property
    def hindered(self) -> bool:
        """Whether a rule took too long, so that not all of them are simply tried."""
        return bool(self._rest or self._guards)

    @property
    def remembered(self) -> Meaning:
        """What earlier lines told; `held` is the rest."""
        return self._meaning

    @property
    def held(self) -> tuple[float | None, list[str]]:
        """The last date, and lines that an expression over several may still need."""
        return self.last, [] if self._lines is None else self._lines.held

    @held.setter
    def held(self, kept: Sequence[Any]) -> None:
        """As it was kept elsewhere; raises ValueError or TypeError where it cannot be that."""
        last, lines = kept
        self.last = None if last is None else float(last)
        if self._lines is not None:
            self._lines.held = [str(line) for line in lines]

    @property
    def suspended(self) -> dict[Rule, float]:
        """The rules that are suspended, and until when."""
        return {rule: until for rule, (until, _) in self._rest.items()}

    def _may_match(self, text: str) -> bool:
        for word in self.filter.words:  # not any(): it would double the cost of a line that means nothing
            if word in text:
                return True
        return not self.filter.words

    def _search(self, rest: str, now: float, plan: _Plan) -> tuple[Rule, dict[str, str]] | None:
        text = rest + "\n" if self._lines is None else self._lines.add(rest)
        if self._ignore_first and self._first(self.filter.ignore, text, now):
            self.counts.ignored += 1
            return None
        groups: dict[str, str] = {}
        if plan.fused and not self._rest and not self._guards:
            found = self._first(plan.fused, text, now, plan.rules)
            if found is None:
                return None
            rule, match = found
            if self.filter.ignore and self._first(self.filter.ignore, text[match.start("content") :], now):
                self.counts.ignored += 1
                return None
            return rule, _groups(match)
        if self._prefix:
            prefixed = self._first(self._prefix, text, now)
            if prefixed is None:
                return None
            groups = _groups(prefixed[1])
            if groups.get("content"):
                text = groups["content"] + "\n"
                if self._lines is not None:
                    self._lines.replace(groups["content"])
        found = self._first(plan.rules, text, now)
        if found is None:
            return None
        rule, match = found
        if self._lines is not None:
            text = self._lines.take(match)
        if self.filter.ignore and self._first(self.filter.ignore, text, now):
            self.counts.ignored += 1
            return None
        groups.update(_groups(match))
        return rule, groups

    def _planned(self, numbers: tuple[int, ...] | None) -> _Plan:
        """How these rules are tried; each as one expression with prefregex, where they are few and that is exact."""
        rules = self.filter.rules if numbers is None else tuple(self.filter.rules[number] for number in numbers)
        both: list[Rule] = []
        if self._prefix and self._lines is None and len(rules) <= FUSED:
            for rule in rules:
                if rule.number not in self._both:
                    pattern = fused(self._prefix[0].pattern, rule.pattern)
                    self._both[rule.number] = None if pattern is None else replace(rule, pattern=pattern)
                if (one := self._both[rule.number]) is not None:
                    both.append(one)
        if len(self._plans) >= PLANS:
            self._plans.clear()
        whole = both if self._prefix else rules
        at = [(rule, placed(each.pattern)) for rule, each in zip(rules, whole, strict=False)]
        quick = tuple((rule, pattern, _names(pattern)) for rule, pattern in at if pattern is not None)
        if len(quick) != len(rules) or self._lines is not None or self.filter.ignore or len(rules) > FUSED:
            quick = ()
        plan = self._plans[numbers] = _Plan(rules, tuple(both) if len(both) == len(rules) else (), quick)
        return plan

    def _first(self, rules: Sequence[Rule], text: str, now: float, origins: Sequence[Rule] = ()) -> Found | None:
        """The first rule that matches, of those that are not suspended; origins: which are to be, if others."""
        if self._rest:
            rules = [rule for rule in rules if rule not in self._rest or self._rest[rule][0] <= now]
        if self._guards:
            rules = [rule for rule in rules if rule not in self._guards or self._guards[rule](text)]
        at = 0
        while True:
            try:
                WATCH.begin()
                for at in range(at, len(rules)):  # noqa: B020 - goes on behind the rule that overran
                    found = rules[at].pattern.search(text)
                    if found is not None:
                        WATCH.end()
                        return rules[at], found
                WATCH.end()
                return None
            except Overrun:
                self._overran((origins or rules)[at], rules[at].pattern, text, now)
                at += 1
            except BaseException:
                # Left open, it would end something else.
                WATCH.search = 0
                raise

    def _overran(self, rule: Rule, tried: re.Pattern[str], text: str, now: float) -> None:
        """From now on a linear engine is asked first; where that is no help, the rule is suspended."""
        self.counts.overruns += 1
        if rule not in self._guards and (possible := guard(rule.pattern)) is not None:
            self._guards[rule] = possible
            together = possible if tried is rule.pattern else guard(tried)
            if together is not None and not together(text):
                return
        self._suspend(rule, now)

    def _suspend(self, rule: Rule, now: float) -> None:
        span = min(2 * self._rest[rule][1], SUSPENDED_MOST) if rule in self._rest else SUSPENDED
        self._rest[rule] = (now + span, span)
        self._report(
            f"filter {self.filter.name}: the expression at {rule.file}:{rule.line} took too long on a line and is "
            f"suspended for {span:.0f} s; the others go on"
        )


def _names(pattern: re.Pattern[str]) -> tuple[str, ...]:
    """The names of the groups in their order, where all have one and none stands in for another; else nothing."""
    names = tuple(pattern.groupindex)
    return names if len(names) == pattern.groups and not any(n.startswith(("alt_", "tuple_")) for n in names) else ()


def _groups(match: re.Match[str]) -> dict[str, str]:
    return completed({name: text for name, text in match.groupdict().items() if text is not None})


def completed(groups: dict[str, str]) -> dict[str, str]:
    """Named groups that matched: `alt_user_1` stands in for a `user` that is empty, `tuple_id` joins the `id`."""
    others = [name for name in groups if name[:4] == "alt_" or name[:6] == "tuple_"]
    for name in sorted(others):
        kind, _, rest = name.partition("_")
        if kind in ("alt", "tuple") and rest:
            plain = re.sub(r"_\d+$", "", rest)
            plain = {"id": "fid", "port": "fport"}.get(plain, plain)
            if kind == "tuple":
                groups[plain] = f"{groups[plain]} {groups[name]}" if plain in groups else groups[name]
            elif groups[name] and not groups.get(plain):
                groups[plain] = groups[name]
    return groups
