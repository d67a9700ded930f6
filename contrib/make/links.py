"""Finds dead links: every relative link in the Markdown files named must lead to a file that is there.

Takes files and folders; prints each dead link with file and line and exits 1 where there is one.  Does not: ask the
network about links to other sites.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def dead_links(page: Path) -> list[str]:
    dead = []
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        for found in LINK.finditer(line):
            target = (found[1] or found[2]).partition("#")[0]
            if (
                target
                and "://" not in target
                and not target.startswith("mailto:")
                and not (page.parent / target).exists()
            ):
                dead.append(f"{page}:{number}: no such file: {target}")
    return dead


def main(names: list[str]) -> int:
    pages = [p for name in names for p in ([Path(name)] if Path(name).is_file() else sorted(Path(name).rglob("*.md")))]
    dead = [line for page in pages for line in dead_links(page)]
    print("\n".join(dead) if dead else f"{len(pages)} pages, no dead link")
    return bool(dead)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
