"""The real daemon with a clock that can be put: `python -m torture.daemon SETTINGS OFFSET`.

OFFSET is a file with eight bytes, a double: seconds by which the wall clock of this daemon is ahead of the machine's.
All else is the daemon as `nftban daemon` starts it; the clock that nobody puts is the machine's own.
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from functools import partial
from pathlib import Path
from time import time

from nftban.daemon.assemble import checked
from nftban.daemon.main import run
from nftban.daemon.steps import uptime


def main() -> int:
    settings, offset = map(Path, sys.argv[1:3])
    with offset.open("rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as ahead:

        def clock() -> float:
            return time() + float(struct.unpack("d", ahead[:8])[0])

        read = partial(checked, settings)
        return asyncio.run(run(read(), False, read, clock, uptime))


if __name__ == "__main__":
    sys.exit(main())
