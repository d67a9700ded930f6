"""The page that `nftban replay --report` writes.

Takes the result of a replay (docs/replay.md); gives one HTML file: figures, plots, good clients, bans with their log
lines, and where two settings differ.
Guarantees: all text from logs is escaped; nothing is fetched, no script runs; light and dark as the reader has it;
readable at 360 pixels.  What is cut from long lists is counted.  Does not: decide, read logs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from nftban.config.words import in_words
from nftban.report.pages.markup import Safe, document, element, joined
from nftban.report.pages.plots import bar, columns, figure, shaded, table
from nftban.report.pages.style import STYLE
from nftban.report.text import counted, log_line, number, when

BANS_SHOWN = 200
GOOD_SHOWN = 100
DIFFERENT_SHOWN = 50

Json = dict[str, Any]


def page(result: Json) -> str:
    several = len(result["settings"]) > 1
    parts: list[str] = [_header(result)]
    if result["difference"] is not None:
        parts.append(_difference(result["difference"]))
    for letter, found in zip("AB", result["settings"], strict=False):
        parts.append(_settings(found, letter if several else ""))
    parts.append(_zones(result["dns"]))
    parts.append(_footer(result))
    return document("nftban replay", STYLE, element("main", *parts))


def _header(result: Json) -> Safe:
    span = ""
    if result["first"] is not None and result["last"] is not None:
        length = in_words(max(0.0, round(result["last"] - result["first"])))
        span = f", {when(result['first'])} to {when(result['last'])} ({length})"
    logs = [
        element("li", element("code", log["name"]), f" {counted(log['lines'], 'line')}", *_unnamed(log))
        for log in result["logs"]
    ]
    return element(
        "header",
        element("h1", "nftban replay"),
        element("p", f"What these settings would have done to {counted(result['lines'], 'line')}{span}."),
        element("ul", *logs, class_="logs"),
        *(element("p", note, class_="note") for note in result["notes"]),
    )


def _unnamed(log: Json) -> list[str]:
    return [] if log["named"] else [element("small", " (no jail names it: all jails read it)")]


def _settings(found: Json, letter: str) -> Safe:
    name = ", ".join(found["config"])
    title = element("h2", *([element("b", letter, class_="letter")] if letter else []), element("code", name))
    return element(
        "article",
        title,
        _cards(found),
        element("div", *_plots(found), class_="plots"),
        _good(found["good"]),
        _bans(found["bans"]),
        data_settings=letter or "A",
    )


def _cards(found: Json) -> Safe:
    addresses = len({ban["prefix"] for ban in found["bans"]})
    hurt = sum(row["logins_stopped"] + row["mails_stopped"] > 0 for row in found["good"])
    offences = f"of {number(found['offences'])}{_percent(found['stopped'], found['offences'])}"
    lines = f"of {number(found['lines'])}{_percent(found['lines_stopped'], found['lines'])}"
    banned = f"of {number(addresses)} of {counted(found['offenders'], 'offender')}"
    good = len(found["good"])
    return element(
        "div",
        _card("bans", len(found["bans"]), banned, "bad"),
        _card("offences stopped", found["stopped"], offences, "cool"),
        _card("lines while banned", found["lines_stopped"], lines, "cool"),
        _card("good clients hit", good, f"{number(hurt)} while at work", "warn" if good else "fine"),
        _card("spared by a login", len(found["spared"]), "had points enough", "fine"),
        class_="cards",
    )


def _percent(part: int, whole: int) -> str:
    return f" ({part / whole:.0%})" if whole else ""


def _card(name: str, value: int, aside: str, kind: str) -> Safe:
    return element(
        "div",
        element("span", name, class_="name"),
        element("strong", number(value), class_=kind, data_card=name, data_value=value),
        element("small", aside),
        class_="card",
    )


def _plots(found: Json) -> list[Safe]:
    return [_timeline(found["timeline"]), _sweep(found), _delays(found["delays"]), _scores(found), _networks(found)]


def _timeline(line: Json) -> Safe:
    if line["start"] is None:
        return element("section", element("h3", "Offences and bans over time"), element("p", "No offence was found."))
    times = [line["start"] + at * line["step"] for at in range(len(line["offences"]))]
    names = [_moment(time, line["step"]) for time in times]
    last = len(times) - 1
    ends = {0, last // 2, last} if last > 3 else {0, last}
    return figure(
        "Offences and bans over time",
        f"Each column is {in_words(line['step'])}.",
        element("h4", "offences"),
        columns("offences", "offences over time", line["offences"], names, kind="cool"),
        element("h4", "bans"),
        columns("bans", "bans over time", line["bans"], names, kind="bad", labelled=ends, height=60),
    )


def _moment(time: float, step: float) -> str:
    local = datetime.fromtimestamp(time, UTC).astimezone()
    return local.strftime("%Y-%m-%d" if step >= 86400 else "%m-%d %H:%M")


def _sweep(found: Json) -> Safe:
    rows = found["sweep"]
    names = [str(row["maxretry"]) for row in rows]
    used = {jail["maxretry"] for jail in found["jails"]}
    marked = [at for at, row in enumerate(rows) if row["maxretry"] in used]
    labelled = [at for at in range(len(rows)) if at in (0, 4, 9, 14, 19)]
    words = f"With every jail's maxretry from {names[0]} to {names[-1]}; " if rows else ""
    return figure(
        "Threshold: bans against good clients hit",
        f"{words}the columns in full colour are what the jails have.",
        element("h4", "addresses banned"),
        columns("sweep-bans", "addresses banned by threshold", [row["addresses"] for row in rows], names, kind="bad",
                marked=marked, height=80),
        element("h4", "good clients among them"),
        columns("sweep-good", "good clients hit by threshold", [row["good"] for row in rows], names, kind="warn",
                marked=marked, labelled=labelled, height=60),
    )  # fmt: skip


def _delays(found: Json) -> Safe:
    names = [f"≤{in_words(end)}" for end in found["within"]] + ["later"]
    return figure(
        "Time to ban",
        "From an address's first offence to its ban.",
        columns(
            "delays", "time from first offence to ban", found["bans"], names, kind="cool", labelled=range(len(names))
        ),
    )


def _scores(found: Json) -> Safe:
    scores = dict(map(tuple, found["scores"]))
    if not scores:
        return element("section", element("h3", "Scores"), element("p", "Nobody would have been banned."))
    first = min(scores)
    last = max(first + 11, min(max(scores), first + 29))  # one score alone makes no plot
    names = [str(score) for score in range(first, last + 1)]
    values = [scores.get(score, 0) for score in range(first, last)]
    values.append(sum(count for score, count in scores.items() if score >= last))
    if max(scores) > last:
        names[-1] += "+"
    labelled = {*range(0, len(names) - 1, max(1, len(names) // 8)), len(names) - 1} - {len(names) - 2}
    return figure(
        "Scores",
        "Points at which addresses would have been banned.",
        columns("scores", "scores of bans", values, names, kind="cool", labelled=labelled),
    )


def _networks(found: Json) -> Safe:
    rows = found["networks"]
    most = max((row["offences"] for row in rows), default=1)
    return figure(
        "Networks with most offences",
        "",
        table(
            ["network", "offences", "", "addresses", "bans"],
            [
                [
                    element("code", row["prefix"]),
                    element("span", number(row["offences"]), data_value=row["offences"]),
                    bar(row["offences"] / most, "cool"),
                    number(row["addresses"]),
                    number(row["bans"]),
                ]
                for row in rows
            ],
            name="networks",
            numbers=(1, 3, 4),
        ),
    )


def _zones(dns: Json) -> Safe:
    zones = dns["zones"]
    asked = f", of which {number(dns['asked'])} were asked for now" if dns["asked"] else ""
    one = "address" if zones["addresses"] == 1 else "addresses"
    about = f"Of {number(zones['addresses'])} {one} DNS's answers are known{asked}."
    if dns["unknown"]:
        about += f" Of {counted(dns['unknown'], 'offender')} nothing is recorded."
    content = [shaded("zones", zones["names"], zones["both"])] if zones["names"] else []
    if zones["names"]:
        about += " How many of them each zone lists, and each two of them."
    return element("article", element("h2", "What DNS said"), element("p", about, class_="about"), *content)


def _good(rows: list[Json]) -> Safe:
    if not rows:
        said = element("p", "None would have been banned.", class_="fine")
        return element("section", element("h3", "Good clients"), said)
    return figure(
        "Good clients that would have been banned",
        f"They logged in or their mail was accepted; who would have lost most is first.{_cut(rows, GOOD_SHOWN)}",
        table(
            ["address", "logins", "stopped", "mails", "stopped", "offences", "jail", "users"],
            [
                [
                    element("code", row["prefix"]),
                    number(row["logins"]),
                    number(row["logins_stopped"]),
                    number(row["mails"]),
                    number(row["mails_stopped"]),
                    number(row["offences"]),
                    ", ".join(row["jails"]),
                    ", ".join(row["users"]),
                ]
                for row in rows[:GOOD_SHOWN]
            ],
            name="good",
            numbers=(1, 2, 3, 4, 5),
        ),
    )


def _cut(rows: list[Json], most: int) -> str:
    return f" The first {most} of {number(len(rows))}." if len(rows) > most else ""


def _bans(bans: list[Json]) -> Safe:
    if not bans:
        return element("section", element("h3", "Bans"), element("p", "None."))
    worst = sorted(bans, key=lambda ban: (-ban["lines_stopped"], ban["since"]))
    return figure(
        "Bans",
        "Those that stop most first." + _cut(bans, BANS_SHOWN),
        *(_ban(ban) for ban in worst[:BANS_SHOWN]),
    )


def _ban(ban: Json) -> Safe:
    length = "permanently" if ban["until"] is None else f"for {in_words(ban['until'] - ban['since'])}"
    head = element(
        "summary",
        element("code", ban["prefix"]),
        element("span", when(ban["since"])),
        element("span", f"{ban['jail']} {ban['score']}/{ban['threshold']}"),
        element("span", f"{number(ban['lines_stopped'])} of {counted(ban['lines'], 'line')}"),
    )
    parts = [element("li", f"{part['points']:+d} {part['reason']}") for part in ban["parts"]]
    lines = "\n".join(log_line(offence["line"]) for offence in ban["log"])
    after = in_words(max(0.0, round(ban["since"] - ban["begun"], 1)))
    about = f"{length}, scope {ban['scope']}, {after} after its first offence; rule {ban['rule']}. {ban['reason']}."
    stopped = f"{counted(ban['stopped'], 'offence')} more would have been stopped."
    return element(
        "details", head, element("p", about), element("ul", *parts), element("p", stopped), element("pre", lines)
    )


def _difference(found: Json) -> Safe:
    def addresses(title: str, bans: list[Json], kind: str) -> Safe:
        rows = [
            [element("code", ban["prefix"]), when(ban["since"]), f"{ban['jail']}: {ban['reason']}"]
            for ban in bans[:DIFFERENT_SHOWN]
        ]
        content = [table(["address", "banned", "why"], rows, name=kind)] if rows else []
        count = element("b", number(len(bans)), data_difference=kind, data_value=len(bans))
        return element(
            "details",
            element("summary", count, f" {title}"),
            element("p", _cut(bans, DIFFERENT_SHOWN)),
            *content,
        )

    def hit(title: str, prefixes: list[str]) -> list[Safe]:
        if not prefixes:
            return []
        named = joined(*(element("code", prefix + " ") for prefix in prefixes[:DIFFERENT_SHOWN]))
        return [element("p", f"{counted(len(prefixes), 'good client')} {title}: ", named, class_="warn")]

    return element(
        "article",
        element("h2", "From A to B"),
        element("p", f"Banned by both: {number(found['both'])}; B bans {number(len(found['earlier']))} of "
                     f"them earlier and {number(len(found['later']))} later."),
        addresses("banned by A only", found["only_first"], "only-first"),
        addresses("banned by B only", found["only_second"], "only-second"),
        *hit("hit by A only", found["good_only_first"]),
        *hit("hit by B only", found["good_only_second"]),
    )  # fmt: skip


def _footer(result: Json) -> Safe:
    return element(
        "footer",
        element("p", f"Read in {result['seconds']:.1f} s. A login counts as the filters find it, mail as accepted when "
                     "Postfix's queue manager has it. Bans lifted early and this machine's own addresses are not "
                     "reckoned with."),
    )  # fmt: skip
