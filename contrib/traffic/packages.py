"""Debian packages of the peers, unpacked into a directory and never installed.

Takes a package's name and a directory that keeps it; gives where its `/` is, or None where apt cannot get it.
Does not: run what is in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def unpacked(name: str, cache: Path) -> Path | None:
    """The directory that stands for `/`."""
    root = cache / name
    if root.is_dir():
        return root
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    cache.mkdir(parents=True, exist_ok=True)
    # As root apt changes to its own user, who may not write here: then it says so, and does it as root.
    subprocess.run(["apt-get", "download", name], cwd=cache, capture_output=True, check=False)
    archives = sorted(cache.glob(f"{name}_*.deb"))
    if not archives:
        return None
    half = cache / f"{name}.{os.getpid()}"
    subprocess.run(["dpkg-deb", "-x", archives[-1], half], check=True)
    half.rename(root)
    return root


def version(name: str, cache: Path) -> str:
    """The version of the archive that was fetched, as its file name has it."""
    archives = sorted(cache.glob(f"{name}_*.deb"))
    return archives[-1].name.split("_")[1].replace("%3a", ":") if archives else ""
