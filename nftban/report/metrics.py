"""What can be counted, as text for Prometheus: `nftban metrics` and the file for node_exporter.

Takes the result of the operation `status` and what is counted besides (`Counted`); gives the text in either format.
Guarantees: no address is a label, and the number of lines depends on the settings only (jails, sources, zones, feeds),
never on who attacks; a value that is not known is left out, not written as 0.  Counters begin again at 0 when the
daemon is started or reads its settings anew.
Source: https://prometheus.io/docs/specs/om/open_metrics_spec/ (1.0) and .../instrumenting/exposition_formats/ (0.0.4)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Labels = Mapping[str, str]

STATES = ("untested", "ok", "degraded", "blocked", "dead", "lists the world")
"""Of zones; verify.health has them."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What `status` does not tell.  jails: offences and bans since the start, by jail; dns: queries, failures, strays;
    events: by kind; notify: sent, failed, dropped, None where nobody is told; turn: seconds that the event loop took
    to come around."""

    jails: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    dns: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    notify: Mapping[str, int] | None = None
    turn: float = 0.0


@dataclass(frozen=True, slots=True)
class Family:
    """name: without the `_total` of a counter; kind: counter, gauge or info; samples: labels and value."""

    name: str
    kind: str
    about: str
    samples: tuple[tuple[Labels, float], ...]


def exposition(status: Json, counted: Counted, openmetrics: bool) -> str:
    """openmetrics: in that format; else in Prometheus's older one, which is what node_exporter reads."""
    lines: list[str] = []
    for family in families(status, counted):
        if not family.samples:
            continue
        written = f"{family.name}_{'total' if family.kind == 'counter' else 'info'}"
        sample = written if family.kind in ("counter", "info") else family.name
        named = family.name if openmetrics else sample
        kind = "gauge" if family.kind == "info" and not openmetrics else family.kind
        lines += [f"# HELP {named} {_escaped(family.about)}", f"# TYPE {named} {kind}"]
        lines += [f"{sample}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join([*lines, "# EOF"] if openmetrics else lines) + "\n"


def names(status: Json, counted: Counted) -> set[str]:
    """The names under which samples can be asked for."""
    ending = {"counter": "_total", "info": "_info"}
    return {family.name + ending.get(family.kind, "") for family in families(status, counted)}


def families(status: Json, counted: Counted) -> Iterator[Family]:
    """All, also those without a sample at present."""
    yield Family("nftban_build", "info", "The daemon.", (({"version": status["version"]}, 1),))
    yield _one("nftban_start_time_seconds", "When the daemon was started or read its settings anew.", status["started"])
    yield _one("nftban_observing", "1: it decides and writes nothing to the kernel.", status["observe"])
    yield from _counters(status["counters"])
    yield from _jails(status["jails"], counted.jails)
    yield from _kernel(status)
    yield from _zones(status["zones"], counted.dns)
    yield from _sources(status["sources"])
    yield from _feeds(status.get("feeds", ()))
    yield from _jobs(status["jobs"])
    yield _counter("nftban_events", "Events by kind.", "kind", counted.events)
    if counted.notify is not None:
        about = "Notifications by what became of them, for each receiver."
        yield _counter("nftban_notifications", about, "result", counted.notify)
    yield _one("nftban_loop_turn_seconds", "How long the event loop took to come around just now.", counted.turn)


_COUNTERS = {
    "lines": "Log lines read.",
    "offences": "Offences found in them.",
    "offences while banned": "Offences of those who were banned already.",
    "late offences": "Offences too old to count.",
    "ignored": "Offences of addresses that a jail ignores.",
    "logins": "Successful logins found.",
    "verifications": "Suspects asked about in DNS.",
    "verifications skipped": "Suspects not asked about: too many were under way.",
    "bans": "Bans that logs led to.",
    "bans refused": "Bans that would have covered somebody protected.",
    "bans expired": "Bans whose time was over.",
    "bans void": "Bans lifted because a zone began to list everybody.",
    "errors": "Lines and decisions that failed by a fault of ours.",
}
"""What the pipeline counts, whether it has happened yet or not."""


def _counters(counters: Mapping[str, int]) -> Iterator[Family]:
    for name, about in _COUNTERS.items():
        written = f"nftban_{name.replace(' ', '_')}"
        yield Family(written, "counter", about, (({}, counters.get(name, 0)),))


def _jails(jails: Iterable[Json], counted: Mapping[str, tuple[int, int]]) -> Iterator[Family]:
    offences = {name: numbers[0] for name, numbers in counted.items()}
    bans = {name: numbers[1] for name, numbers in counted.items()}
    yield _counter("nftban_jail_offences", "Offences by jail.", "jail", offences)
    yield _counter("nftban_jail_bans", "Bans by jail.", "jail", bans)
    for key, about in (
        ("suspects", "Prefixes that a jail counts offences of."),
        ("bans", "Bans by jail that hold now."),
    ):
        name = "nftban_jail_suspects" if key == "suspects" else "nftban_jail_live_bans"
        yield _gauge(name, about, "jail", ((jail["name"], jail[key]) for jail in jails))


def _kernel(status: Json) -> Iterator[Family]:
    kernel, healing = status["kernel"], status["healing"]
    yield _one("nftban_live_bans", "Bans that hold now.", status["bans"])
    yield _gauge("nftban_kernel_elements", "Elements by kernel set.", "set", kernel["elements"].items())
    yield _one("nftban_kernel_intact", "1: table, chains, sets and rules are as intended.", kernel["intact"])
    for what in ("found", "healed"):
        samples: tuple[tuple[Labels, float], ...] = (({}, healing[f"drift_{what}"]),)
        yield Family(f"nftban_drift_{what}", "counter", f"Changes of our table by others, {what}.", samples)
    yield _counter("nftban_drift_kinds", "What was changed by others.", "kind", healing["by_kind"])
    yield _one("nftban_drift_resting", "1: changed so often that it is mended by the minute only.", healing["resting"])


def _zones(zones: Iterable[Json], dns: Mapping[str, int]) -> Iterator[Family]:
    for name in ("queries", "failures", "strays"):
        about = {
            "queries": "DNS queries sent.",
            "failures": "DNS questions that got no answer, or one that is none.",
            "strays": "Datagrams that answered nothing we had asked.",
        }[name]
        samples: tuple[tuple[Labels, float], ...] = (({}, dns[name]),) if name in dns else ()
        yield Family(f"nftban_dns_{name}", "counter", about, samples)
    rows = list(zones)
    states = tuple(
        ({"zone": row["zone"], "state": state}, float(row["state"] == state)) for row in rows for state in STATES
    )
    yield Family("nftban_zone_state", "gauge", "1 for the state that a DNSBL is in.", states)
    for name, about, key in (
        ("usable", "1: the DNSBL is asked.", "usable"),
        ("queries_today", "Queries to the DNSBL since midnight UTC.", "queries_today"),
        ("budget", "Queries a day that the DNSBL may be asked.", "budget"),
        ("tested_timestamp_seconds", "The last test that the DNSBL passed.", "tested"),
    ):
        yield _gauge(f"nftban_zone_{name}", about, "zone", ((row["zone"], row.get(key)) for row in rows))


def _sources(sources: Iterable[Json]) -> Iterator[Family]:
    rows = list(sources)
    for name, about, key in (
        ("lines", "Lines read, by log.", "lines"),
        ("bytes", "Bytes read, by log.", "bytes"),
        ("oversized_lines", "Lines that were too long.", "oversized"),
        ("undecodable_lines", "Lines that were no UTF-8.", "undecodable"),
    ):
        yield _counter(f"nftban_source_{name}", about, "source", {row["path"]: row[key] for row in rows})
    about = "When a log's last line was read."
    lines = ((row["path"], row["last_line"]) for row in rows)
    yield _gauge("nftban_source_last_line_timestamp_seconds", about, "source", lines)
    for name, about, key in (
        ("alert", "1: a log is silent against its habit, or cannot be read as it is.", "alert"),
        ("error", "1: a log cannot be read.", "error"),
    ):
        yield _gauge(f"nftban_source_{name}", about, "source", ((row["path"], bool(row.get(key))) for row in rows))


def _feeds(feeds: Iterable[Json]) -> Iterator[Family]:
    rows = list(feeds)
    for name, about, key in (
        ("entries", "Entries of a feed's last good list.", "entries"),
        ("confirmed_timestamp_seconds", "When a feed's list was last confirmed by its server.", "confirmed"),
        ("good_until_timestamp_seconds", "Until when a feed's list is used if nobody confirms it.", "good_until"),
        ("failures", "Attempts in a row at a feed that failed or were refused.", "failures"),
    ):
        yield _gauge(f"nftban_feed_{name}", about, "feed", ((row["name"], row[key]) for row in rows))
    refused = ((row["name"], bool(row["refused"])) for row in rows)
    yield _gauge("nftban_feed_refused", "1: a guard refused a feed's latest list.", "feed", refused)


def _jobs(jobs: Iterable[Json]) -> Iterator[Family]:
    rows = list(jobs)
    for name, key in (("runs", "runs"), ("errors", "errors"), ("missed", "missed")):
        about = {"runs": "Runs of a periodic job.", "errors": "Runs that failed.", "missed": "Runs that were missed."}
        yield _counter(f"nftban_job_{name}", about[name], "task", {row["id"]: row[key] for row in rows})


def _one(name: str, about: str, value: float) -> Family:
    return Family(name, "gauge", about, (({}, float(value)),))


def _counter(name: str, about: str, label: str, values: Mapping[str, int]) -> Family:
    return Family(name, "counter", about, tuple(({label: key}, value) for key, value in sorted(values.items())))


def _gauge(name: str, about: str, label: str, values: Iterable[tuple[str, float | None]]) -> Family:
    known = tuple(({label: key}, float(value)) for key, value in values if value is not None)
    return Family(name, "gauge", about, known)


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    # Bytes of a path that are no UTF-8 come as surrogates, which no text file takes.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
