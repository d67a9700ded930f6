"""The whole story of one address: `nftban why`.

Takes the result of the operation `why` (docs/interface.md) and the time; gives what rich prints.
Order: banned or not and until when; each live ban with its rule, the score as a sum to redo by hand, what DNS said,
the log lines; what is being watched; what the kernel has; earlier bans.
Guarantees: text from logs and DNS is escaped; fits 80 columns, is meant for 100; nothing but the last of many log
lines is left out, and that is said.  Does not: ask anybody anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from nftban.config.words import in_words
from nftban.report.text import (
    ago,
    clock,
    columns,
    counted,
    heading,
    indented,
    left,
    log_line,
    number,
    ports,
    shown,
    size,
    when,
)

LINES_SHOWN = 10

Json = dict[str, Any]


def why(result: Json, now: float) -> Group:
    address = str(result["address"])
    live = [ban for ban in result["bans"] if ban["ended"] is None]
    past = [ban for ban in result["bans"] if ban["ended"] is not None]
    told = live or (past[:1] if not result["watched"] else [])
    parts: list[RenderableType] = [headline(result, now)]
    if not result["banned"] and not result.get("protected") and result.get("reason"):
        parts.append(Text(f"Why not: {shown(result['reason'])}", style="green"))
    if login := result.get("login"):
        user = f" as {shown(login['user'])}" if login.get("user") else ""
        parts.append(Text(f"Last successful login {when(login['time'])}{user}.", style="green"))
    for ban in told:
        parts += ["", *_ban(ban, address, now)]
    for suspect in result["watched"]:
        parts += ["", *_watched(suspect, address, now)]
    if feeds := result.get("feeds"):
        parts += ["", heading("Feeds", f"on {', '.join(map(shown, feeds))}")]
    parts += ["", kernel_entries(result["kernel"], now)]
    earlier = [ban for ban in past if ban not in told]
    if earlier:
        parts += ["", _history(earlier, now)]
    if lengths := result.get("next"):
        parts += ["", _escalation(result["earlier"], lengths)]
    if events := result.get("events"):
        parts += ["", _events(events)]
    if changes := result.get("changes"):
        parts += ["", heading("What would change it"), *(indented(Text(f"- {shown(each)}")) for each in changes)]
    if result.get("note"):
        parts += ["", Text(shown(result["note"]), style="yellow")]
    return Group(*parts)


def headline(result: Json, now: float) -> Text:
    """One line: banned or not, for what, until when, for how long still."""
    line = Text(shown(result["address"]), style="bold")
    if result["banned"]:
        ends = [ban["until"] for ban in (result.get("bans") or result.get("entries") or []) if not ban.get("ended")]
        line.append(" is BANNED", style="bold red")
        if None in ends:
            line.append(" permanently")
        elif ends:
            line.append(f" until {when(max(ends))}")
            line.append(f", for another {left(max(ends), now)}", style="default")
    elif result.get("protected"):
        line.append(" is never banned", style="bold green").append(f": {shown(result['protected'])}")
    else:
        line.append(" is not banned", style="bold green")
        if result.get("watched"):
            line.append(", but watched", style="yellow")
    return line


def _ban(ban: Json, address: str, now: float) -> Iterator[RenderableType]:
    by = f"jail {shown(ban['jail'])}" if ban["jail"] else origin(ban)
    of = "" if ban["prefix"] == address else f" of {shown(ban['prefix'])}"
    title = f"{'Ended ban' if ban['ended'] else 'Ban'}{of} by {by}, {ports(ban['scope'])}"
    yield heading(title, f"since {when(ban['since'])}, {_length(ban)}")
    if ban["ended"]:
        yield indented(Text(f"{shown(ban['ended']['how'])}, {when(ban['ended']['time'])}", style="green"))
    if ban.get("rule") or ban["reason"]:
        yield indented(Text(shown(ban.get("rule") or ban["reason"]), style="bold"))
    if ban["parts"]:
        yield indented(_sum(ban["parts"], ban["score"], ban["threshold"]))
    if ban.get("needs_listing"):
        yield indented(Text("Without its listing it would not be banned: a delisting lifts this ban.", style="dim"))
    if checked := ban.get("checked"):
        yield indented(
            Text(f"Asked again {ago(checked['time'], now)}, and kept: {shown(checked['words'])}", style="dim")
        )
    yield from _evidence(ban, address, now)


def origin(ban: Json) -> str:
    return "hand" if ban["origin"] == "manual" else shown(ban["origin"])


def _length(ban: Json) -> str:
    return "permanent" if ban.get("duration") is None else f"for {in_words(ban['duration'])}"


def _watched(suspect: Json, address: str, now: float) -> Iterator[RenderableType]:
    score, threshold = suspect["score"], suspect["threshold"]
    word = "Spared" if suspect.get("action") == "spare" else "Watched"
    yield heading(f"{word} by jail {shown(suspect['jail'])}", f"{score} of {counted(threshold, 'point')}")
    if offences := suspect["offences"]:
        window = f" in a window of {in_words(suspect['findtime'])}" if suspect.get("findtime") else ""
        span = f"first {when(offences[0]['time'])}, last {when(offences[-1]['time'])}"
        yield indented(Text(f"{counted(len(offences), 'offence')}{window}: {span}", style="dim"))
    if suspect["parts"]:
        yield indented(_sum(suspect["parts"], score, threshold))
    yield from _evidence(suspect, address, now)


def _sum(parts: list[Json], score: int | None, threshold: int | None) -> RenderableType:
    """The score as one adds on paper: a summand a line, a stroke, the total against the threshold."""
    table = columns("cyan", "")
    table.columns[0].justify = "right"
    for part in parts:
        table.add_row(f"{part['points']:+d}", shown(part["reason"]))
    total = sum(part["points"] for part in parts) if score is None else score
    table.add_row("───", "", style="dim")
    verdict = Text("")
    if threshold is not None:
        reached = total >= threshold
        verdict = Text(f"of {threshold} needed for a ban", style="red" if reached else "green")
    table.add_row(f"{total:d}", verdict, style="bold")
    return table


def _evidence(of: Json, address: str, now: float) -> Iterator[RenderableType]:
    if of.get("listings"):
        yield indented(Text("DNSBLs", style="bold"))
        yield indented(listings(of["listings"], now), 4)
    if of.get("reverse"):
        yield indented(Text("Reverse DNS", style="bold"))
        yield indented(reverse(of["reverse"], now), 4)
    if of.get("helo"):
        yield indented(Text("HELO", style="bold"))
        yield indented(helo(of["helo"], of.get("spf"), now), 4)
    if of.get("offences"):
        yield indented(heading("Log lines", counted(len(of["offences"]), "offence")))
        yield indented(_offences(of["offences"], address), 4)


_ANSWER = {"listed": ("LISTED", "bold red"), "clear": ("clear", "green"), "unknown": ("unknown", "yellow")}


def listings(answers: list[Json], now: float) -> RenderableType:
    """A line per zone: its answer, what it counts, codes and reason, when it was asked."""
    table = columns("", "", "cyan", "dim", "")
    for one in answers:
        word, style = _ANSWER.get(one["answer"], (shown(one["answer"]), "yellow"))
        said = " ".join(shown(text) for text in (*one["codes"], one["reason"]) if text)
        asked = "by the server" if one.get("logged") else clock(one["asked"], now) if one["asked"] else ""
        table.add_row(shown(one["zone"]), Text(word, style=style), _points(one), asked, said)
    return table


def _points(listing: Json) -> str:
    """`+4`; what counts on port 25 only stands apart: `+2 (port 25)`."""
    everywhere, policy = listing.get("points", 0), listing.get("policy_points", 0)
    parts = [f"{everywhere:+d}"] if everywhere else []
    return " ".join([*parts, f"{policy:+d} (port 25)"] if policy else parts)


def reverse(found: Json, now: float) -> RenderableType:
    """PTR names and whether they lead back; None is told as what it is: no clear answer."""
    has_name = {True: ("has a name", "green"), False: ("no name", "red"), None: ("unknown", "yellow")}
    leads_back = {True: ("leads back", "green"), False: ("does not lead back", "red"), None: ("unconfirmed", "yellow")}
    word, style = leads_back[found["confirmed"]] if found["names"] else has_name[found["has_name"]]
    table = columns("", "dim", "")
    asked = clock(found["asked"], now) if found.get("asked") else ""
    if found.get("logged"):
        asked = "by the server"
    names = " ".join(shown(name) for name in found["names"])
    kind = _KINDS.get(found.get("kind") or "", "")
    table.add_row(Text(word, style=style), asked, "  ".join(filter(None, (names, kind, shown(found["reason"])))))
    return table


_KINDS = {"generic": "(a name that its network gives to everybody)", "cloud": "(a rented machine's name, as given)"}

_SPF = {"pass": "green", "fail": "bold red", "softfail": "red"}


def helo(said: Json, spf: Json | None, now: float) -> RenderableType:
    """The name the client gave itself, and what its owner's SPF policy says of the address."""
    leads = {True: ("leads back", "green"), False: ("leads elsewhere", "red"), None: ("unconfirmed", "yellow")}
    word, style = ("false", "bold red") if said["fault"] else leads[said["forward"]]
    table = columns("", "dim", "")
    same = {True: "same organisation as its PTR name", False: "another organisation than its PTR name"}
    about = filter(None, (shown(said["name"]), shown(said["reason"]), same.get(said["same_organisation"], "")))
    table.add_row(Text(word, style=style), clock(said["asked"], now) if said["asked"] else "", "  ".join(about))
    if spf:
        result = Text(f"SPF {spf['result']}", style=_SPF.get(spf["result"], "yellow"))
        table.add_row(result, clock(spf["asked"], now) if spf["asked"] else "", shown(spf["reason"]))
    return table


def _offences(offences: list[Json], address: str) -> RenderableType:
    """The last lines, oldest first: when and where each stands, which rule found it, then the line itself."""
    blocks: list[RenderableType] = []
    if len(offences) > LINES_SHOWN:
        blocks.append(Text(f"… {number(len(offences) - LINES_SHOWN)} earlier ones: --json shows all", style="dim"))
    for offence in offences[-LINES_SHOWN:]:
        rule = f"{shown(offence['filter'])} rule {shown(offence['rule'])}"
        service = f" on {shown(offence['service'])}" if offence.get("service") else ""
        about = f"{when(offence['time'])}  {shown(offence['source'])}  {rule}{service}"
        facts = ", ".join(f"{shown(name)} {shown(value)}" for name, value in offence.get("facts", {}).items())
        blocks.append(Text.assemble((about, "dim"), (f"  +{offence['weight']}", "cyan"), (f"  {facts}", "dim")))
        line = Text(log_line(offence["line"]))
        line.highlight_words([address], "bold")
        blocks.append(indented(line))
    return Group(*blocks)


def kernel_entries(entries: list[Json], now: float) -> RenderableType:
    """What the kernel has for the address, with what it stopped."""
    if not entries:
        return heading("Kernel", "no set holds this address")
    table = columns("cyan", "", "", "dim", "dim")
    for entry in entries:
        stopped = [counted(entry["packets"], "packet")] if entry.get("packets") is not None else []
        stopped += [size(entry["bytes"])] if entry.get("bytes") is not None else []
        ends = "" if entry["until"] is None else when(entry["until"])
        table.add_row(shown(entry["set"]), shown(entry["prefix"]), left(entry["until"], now), ends, ", ".join(stopped))
    return Group(heading("Kernel"), indented(table))


def _escalation(earlier: int, lengths: Json) -> RenderableType:
    """How long a ban would be that came next, jail by jail where they differ."""
    by_length: dict[str, list[str]] = {}
    for jail, length in lengths.items():
        by_length.setdefault("permanent" if length is None else f"for {in_words(length)}", []).append(shown(jail))
    told = "; ".join(f"{length} ({', '.join(jails)})" for length, jails in by_length.items())
    return heading("The next ban would be", f"{told}; {counted(earlier, 'earlier ban')} of it ran out")


def _events(events: list[Json]) -> RenderableType:
    table = columns("dim", "cyan", "")
    for event in events:
        table.add_row(when(event["time"]), shown(event["kind"]), shown(event["text"]))
    return Group(heading("Reported of it"), indented(table))


def _history(bans: list[Json], now: float) -> RenderableType:
    table = columns("", "", "cyan", "", "")
    for ban in bans:
        score = "" if ban["score"] is None else f"{ban['score']}/{ban['threshold']}"
        ended = f"{shown(ban['ended']['how'])} {ago(ban['ended']['time'], now)}"
        by = shown(ban["jail"]) or origin(ban)
        table.add_row(when(ban["since"]), in_words(ban.get("duration")), score, by, ended)
    return Group(heading("Earlier bans", number(len(bans))), indented(table))
