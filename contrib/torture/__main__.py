"""`python -m torture`: rounds of random faults on the real daemon, in a private network, each held against a model.

--seconds, --rounds: it ends with the first of them that is reached.  --seed: the same rounds again (what the kernel and
the scheduler do in between is theirs).  --fault: only these.  Exit status: 0 if nothing was lost, doubled or banned
wrongly and no exception went unhandled; 1 otherwise, with what differed, the seed and the daemon's last words.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from demo.isolation import isolated

from nftban.errors import NftbanError
from torture.faults import FAULTS
from torture.world import TortureError, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="only this one; may be repeated")
    chosen = parser.parse_args()
    try:
        return isolated(lambda: torture(chosen.seed, chosen.seconds, chosen.rounds, chosen.fault or sorted(FAULTS)))
    except NftbanError as e:
        print(e, file=sys.stderr)
        return e.exit_code


def torture(seed: int, seconds: float, rounds: int, faults: list[str]) -> int:
    """The exit status."""
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, World(Path(name), rng) as world:
        fault = "start"
        try:
            world.start()
            while sum(done.values()) < rounds and time.monotonic() - began < seconds:
                fault = rng.choice(faults)
                FAULTS[fault](world)
                world.check()
                if trouble := world.trouble():
                    raise TortureError("an exception that nobody handled:\n" + trouble[0])
                done[fault] += 1
                world.thin()
            held = world.stored()
        except (TortureError, NftbanError, OSError) as e:
            print(f"seed {seed}, round {sum(done.values()) + 1}, {fault}: {e}", file=sys.stderr)
            print("\n".join(world.last_words()), file=sys.stderr)
            return 1
        print(f"{sum(done.values())} rounds in {time.monotonic() - began:.0f} s, nothing lost, doubled or wrong")
        print(", ".join(f"{name} {count}" for name, count in sorted(done.items())))
        print(f"banned {len(world.model.banned)}, counted {len(world.model.held)}, rows {held}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
