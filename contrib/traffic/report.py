"""Scores as Markdown and as pictures.

Takes Scores; gives text and SVG.  Figures are rounded so far that the next digit says nothing.
Does not: read or write files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from traffic.score import Kind, Score, median_and_90th

COLOURS = ("#2563a8", "#8fb8de", "#c2410c", "#d9a300", "#7a7a7a", "#3f8f5f")


def _per_cent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _pair(values: Sequence[float], unit: Callable[[float], str]) -> str:
    if not values:
        return "-"
    middle, high = median_and_90th(list(values))
    return f"{unit(middle)} / {unit(high)}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.1f} s"


def table(scores: Sequence[Score]) -> str:
    """Everything in one table, a row a contestant."""
    lines = [
        "| | attack lines prevented | lines to the ban, median / 90 % | time to the ban, median / 90 % | "
        "attackers never banned | clients banned | of them by a lying zone | minutes of denied service | "
        "their lines kept away | DNS queries |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for score in scores:
        bad, good = score.total(False), score.total(True)
        missed = f"{_count(bad.actors - bad.banned)} of {_count(bad.actors)}"
        lines.append(
            f"| {score.name} | {_per_cent(bad.share)} | {_pair(bad.to_ban, _count)} | {_pair(bad.seconds, duration)} | "
            f"{missed} | {_count(good.banned)} of {_count(good.actors)} | "
            f"{_count(good.lied)} | {_count(good.minutes)} | {_count(good.prevented)} | {_count(score.queries)} |"
        )
    return "\n".join(lines)


def _by_kind(scores: Sequence[Score], good: bool, head: str, cell: Callable[[Kind], str]) -> str:
    names = [name for name, kind in scores[0].kinds.items() if kind.good == good]
    lines = [f"| {head} | " + " | ".join(s.name for s in scores) + " |", "|---|--:|--:|" + "--:|" * len(scores)]
    for name in names:
        first = scores[0].kinds[name]
        cells = " | ".join(cell(score.kinds[name]) for score in scores)
        lines.append(f"| {name} | {_count(first.actors)} | {_count(first.lines)} | {cells} |")
    return "\n".join(lines)


def attackers(scores: Sequence[Score]) -> str:
    """By kind: share prevented, and how many were ever banned."""
    return _by_kind(
        scores,
        False,
        "attackers | how many | lines",
        lambda k: f"{_per_cent(k.share)}, {_count(k.banned)}" if k.banned else f"{_per_cent(k.share)}, none",
    )


def to_ban(scores: Sequence[Score]) -> str:
    """By kind: lines to the ban."""
    return _by_kind(
        scores,
        False,
        "attackers | how many | lines",
        lambda k: f"{_pair(k.to_ban, _count)}; {_pair(k.seconds, duration)}" if k.to_ban else "-",
    )


def clients(scores: Sequence[Score]) -> str:
    """By kind: who was banned, and for how many minutes."""
    return _by_kind(
        scores,
        True,
        "clients | how many | lines",
        lambda k: f"{_count(k.banned)}, {_count(k.minutes)} min" if k.banned else "0",
    )


def goals(scores: Sequence[Score]) -> str:
    """The goals of the comparison with fail2ban, as they stand."""
    ours = next((s for s in scores if s.name == "nftban"), None)
    theirs = next((s for s in scores if s.name == "fail2ban"), None)
    if ours is None or theirs is None:
        return ""
    bad, their_bad, good, their_good = ours.total(False), theirs.total(False), ours.total(True), theirs.total(True)
    passed = their_bad.lines - their_bad.prevented
    caught = (bad.prevented - their_bad.prevented) / passed if passed else 0.0
    ratio = good.minutes / their_good.minutes if their_good.minutes else 0.0
    fewer, more, none = (
        "at most a tenth of fail2ban's minutes of denied service",
        "at least half of the attack lines that fail2ban lets through prevented",
        "no client banned by a zone that fails or lists everybody",
    )
    return "\n".join(
        (
            "| goal | now | |",
            "|---|--:|---|",
            f"| {fewer} | {100 * ratio:.0f} % of them | {_met(ratio <= 0.1)} |",
            f"| {more} | {100 * caught:.0f} % | {_met(caught >= 0.5)} |",
            f"| {none} | {_count(good.lied)} | {_met(not good.lied)} |",
        )
    )


def _met(met: bool) -> str:
    return "met" if met else "**not met**"


# Pictures


def bars(scores: Sequence[Score], good: bool) -> str:
    """SVG: by kind, the share of attack lines prevented, or minutes of denied service for each client."""
    names = [name for name, kind in scores[0].kinds.items() if kind.good == good]
    value: Callable[[Kind], float] = (lambda k: k.minutes / max(k.actors, 1)) if good else (lambda k: k.share)
    most = max((value(s.kinds[n]) for s in scores for n in names), default=1.0) or 1.0
    scale = most if good else 1.0
    title = "Minutes of denied service for each client" if good else "Share of attack lines prevented"
    row, left, width = 9 * len(scores) + 14, 190, 520
    height = 60 + row * len(names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="#ffffff"/><text x="10" y="20" font-size="15">{escape(title)}</text>',
    ]
    for place, score in enumerate(scores):
        x = 10 + place * 145
        parts.append(f'<rect x="{x}" y="30" width="10" height="10" fill="{COLOURS[place % 6]}"/>')
        parts.append(f'<text x="{x + 14}" y="39">{escape(score.name)}</text>')
    for line, name in enumerate(names):
        top = 56 + row * line
        parts.append(f'<text x="{left - 8}" y="{top + row / 2 - 3:.0f}" text-anchor="end">{escape(name)}</text>')
        for place, score in enumerate(scores):
            amount = value(score.kinds[name])
            y, length = top + 9 * place, max(width * amount / scale, 0.5)
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="8" fill="{COLOURS[place % 6]}"/>')
            label = _count(amount) if good else f"{100 * amount:.0f} %"
            parts.append(f'<text x="{left + length + 4:.1f}" y="{y + 8}" font-size="9">{label}</text>')
    return "\n".join((*parts, "</svg>")) + "\n"
