"""`python -m bench`: runs the measurements of rows.py in a private network namespace and prints one table.

--quick does a hundredth of the work, once: it shows that everything runs and says nothing about speed.  --json prints
the rows as one JSON document.  Names of measurements choose some of them.  Exit status: 0 if every limit was met (with
--quick: if everything ran), 1 if not, 77 where the kernel allows no private network.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict

from demo.isolation import isolated
from rich.console import Console
from rich.table import Table

from bench.measures import Row, Scale
from bench.rows import MEASUREMENTS
from nftban.errors import NftbanError

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def main() -> int:
    names = {measurement.__name__: measurement for measurement in MEASUREMENTS}
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n")[0])
    parser.add_argument("measurement", nargs="*", metavar="NAME", help=f"only these of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work: does everything run?")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.measurement if name not in names]
    if unknown:
        parser.error(f"no such measurement: {', '.join(unknown)}")

    def measured() -> int:
        rows: list[Row] = []
        progress = Console(stderr=True)
        for name in chosen.measurement or names:
            with progress.status(f"measuring {name} ..."):
                rows += names[name](Scale(chosen.quick))
        if chosen.json:
            print(json.dumps([{**asdict(row), "figure": row.figure, "met": row.met} for row in rows], indent=2))
        else:
            console = Console() if sys.stdout.isatty() else Console(width=150)
            console.print(table(rows, quick=chosen.quick))
        return int(not chosen.quick and any(row.met is False for row in rows))

    try:
        return isolated(measured)
    except NftbanError as e:
        print(e, file=sys.stderr)
        return e.exit_code


def table(rows: list[Row], *, quick: bool) -> Table:
    made = Table(title="nftban beside what it replaces" + (" (quick: figures mean nothing)" if quick else ""))
    for name in ("what", "ours", "peer", "", "ratio", "at most", "goal", "", "note"):
        made.add_column(name, justify="right" if name in ("ours", "peer", "ratio", "at most", "goal") else "left")
    for row in rows:
        against_peer = row.peer is not None
        made.add_row(
            row.what,
            shown(row.ours, row.unit),
            shown(row.peer, row.unit),
            row.peer_name,
            ratio(row.figure) if against_peer else "",
            ratio(row.limit) if against_peer else shown(row.limit, row.unit),
            ratio(row.goal) if against_peer else shown(row.goal, row.unit),
            {None: "", True: "[green]✓[/]", False: "[red]✗[/]"}[row.met],
            row.note,
        )
    return made


def shown(value: float | None, unit: str) -> str:
    """With three digits; seconds in the unit that suits them."""
    if value is None:
        return ""
    if unit != "s":
        return f"{value:,.0f} {unit}"
    factor, name = next(((f, n) for f, n in UNITS if value >= f), UNITS[-1])
    return f"{value / factor:.3g} {name}"


def ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"1/{1 / value:.0f}" if 0 < value < 0.1 and math.isfinite(value) else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
