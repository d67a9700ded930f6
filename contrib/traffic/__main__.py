"""`python -m traffic`: judges nftban, its peers and baselines on simulated traffic, or writes the traffic.

`judge` runs the contestants side by side, prints the tables, and with --docs puts them into FOLDER/judgement.md between
its two marks, with judgement-attackers.svg and judgement-clients.svg beside it.  --with FILE adds nftban with those
settings on top of the shipped ones.  `write FOLDER` writes the logs, the truth and DNS's state.
The same seed, days and size give the same figures on every machine, but for CPU times and the peers' versions.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from traffic import baseline, crowdsec, ours, packages, report, theirs
from traffic.outcome import Outcome
from traffic.score import Score, scores
from traffic.simulate import population, write

TUNING_SEED, PUBLISHED_SEED = 1, 2
BEGIN_MARK, END_MARK = "<!-- made by make judge -->\n", "<!-- end of what make judge made -->\n"
CACHE = Path(__file__).parents[2] / "build/judge"
CONTESTANTS = ("nftban", "nftban, count only", "fail2ban", "CrowdSec", "DNSBL only")

Size = tuple[int, float, float]


def contest(name: str, size: Size, conf: str = "", cache: Path = CACHE) -> Outcome | None:
    """One contestant's Outcome; None where its package cannot be had.  conf: nftban's further settings."""
    people = population(*size)
    if name == "fail2ban":
        root = packages.unpacked(name, cache) if theirs.PYTHON.exists() else None
        return theirs.run(people, root) if root is not None else None
    if name == "CrowdSec":
        root = packages.unpacked("crowdsec", cache)
        return crowdsec.run(people, root) if root is not None else None
    if name == "DNSBL only":
        return baseline.run(people)
    return ours.run(name, people, {"judged.toml": ours.WITHOUT_DNS if name == CONTESTANTS[1] else conf})


def judged(size: Size, names: tuple[str, ...], more: dict[str, str]) -> list[Score]:
    """Scores in the order of the names, then of the further settings by name."""
    with ProcessPoolExecutor() as pool:
        running = {name: pool.submit(contest, name, size) for name in names}
        running.update({name: pool.submit(contest, name, size, conf) for name, conf in more.items()})
        found = [(name, run.result()) for name, run in running.items()]
    for name, outcome in found:
        if outcome is None:
            print(f"{name}: its package cannot be had here, so it takes no part", file=sys.stderr)
    return scores(population(*size), [outcome for _, outcome in found if outcome is not None])


def page(found: list[Score], size: Size) -> str:
    """What stands between the marks."""
    people = population(*size)
    lines = sum(kind.lines for kind in found[0].kinds.values())
    seed, days, part = size
    versions = [f"{n} {v}" for n in ("fail2ban", "crowdsec") if (v := packages.version(n, CACHE))]
    cpu = ", ".join(f"{score.name} {score.cpu:.0f} s" for score in found if score.cpu)
    return "\n\n".join(
        (
            f"Seed {seed}, {days:g} days, size {part:g}: {len(people.actors):,} actors, {lines:,} lines. "
            f"{', '.join(versions)}, as Debian has them. CPU time: {cpu}.",
            report.goals(found),
            report.table(found),
            "![Share of attack lines prevented, by kind](judgement-attackers.svg)",
            "### Attackers\n\nShare of their lines prevented, and how many were ever banned.",
            report.attackers(found),
            "Lines written before the ban, and the time from the first line to it, median / 90 %, of those banned.",
            report.to_ban(found),
            "### Clients\n\nHow many were banned, and their minutes of denied service together.",
            report.clients(found),
            "![Minutes of denied service for each client, by kind](judgement-clients.svg)",
        )
    )


def into_docs(folder: Path, text: str, found: list[Score]) -> None:
    path = folder / "judgement.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN_MARK)
    after = rest.partition(END_MARK)[2]
    path.write_text(f"{before}{BEGIN_MARK}\n{text}\n\n{END_MARK}{after}", encoding="utf-8")
    for name, good in (("attackers", False), ("clients", True)):
        (folder / f"judgement-{name}.svg").write_text(report.bars(found, good), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m traffic", description=__doc__.split("\n")[0])
    sub = parser.add_subparsers(dest="what", required=True)
    judge = sub.add_parser("judge", help="run the contestants and print the tables")
    judge.add_argument("--only", action="append", choices=CONTESTANTS, help="this contestant; may be given again")
    judge.add_argument(
        "--with", dest="more", action="append", type=Path, default=[], help="nftban with these settings too"
    )
    judge.add_argument("--docs", type=Path, help="the folder whose judgement.md gets the tables")
    writer = sub.add_parser("write", help="write mail.log, auth.log, truth.jsonl and dns.json")
    writer.add_argument("folder", type=Path)
    for each in (judge, writer):
        each.add_argument("--seed", type=int, default=PUBLISHED_SEED, help="published: 2; for tuning: 1")
        each.add_argument("--days", type=float, default=3)
        each.add_argument("--size", type=float, default=1, help="1: some 4,500 actors")
    chosen = parser.parse_args(arguments)
    size = (chosen.seed, chosen.days, chosen.size)
    if chosen.what == "write":
        print(f"{write(population(*size), chosen.folder):,} lines in {chosen.folder}")
        return 0
    more = {f"nftban, {path.stem}": path.read_text(encoding="utf-8") for path in chosen.more}
    names = tuple(name for name in CONTESTANTS if not chosen.only or name in chosen.only)
    found = judged(size, names, more)
    text = page(found, size)
    print(text)
    if chosen.docs is not None:
        into_docs(chosen.docs, text, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
