"""`python -m debian [FOLDER]`: builds the Debian package; its name is printed.

Takes this checkout, requirements.lock and pip's index; gives nftban_VERSION_ARCH.deb in FOLDER (dist/), made with
dpkg-deb(1) alone.  Everything that nftban imports lies in /usr/lib/nftban, at the versions and with the hashes of the
lock, compiled; of the machine it needs Debian's Python, of the minor version that it was built for, because wheels with
compiled parts fit one only.
Guarantees: no compiler runs (wheels only); as installed it observes ([daemon] observe in the nftban.toml it installs).
Does not: sign, upload, build for another architecture than this machine's.
Source: deb(5), deb-control(5), Debian Policy 6 and 10.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

from completions.__main__ import SHELLS, commands
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nftban import __version__

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
REVISION = "1"

LAUNCHER = f"""\
#!{PYTHON} -IS
# Isolated: nothing of the machine's Python packages, nothing from the environment.
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib" / "nftban"))

from nftban.cli.app import main

main()
"""

OBSERVE = """\
[daemon]
# As installed nftban observes: it decides, and `nftban status`, `list` and `why` show what it would do, but it writes
# nothing to the kernel.  To ban: false, then `systemctl reload nftban`.
observe = true

"""

COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/nftban",
    "zsh": "usr/share/zsh/vendor-completions/_nftban",
    "fish": "usr/share/fish/vendor_completions.d/nftban.fish",
}


def run(*words: str | Path) -> str:
    """A command's output; its failure ends the build."""
    return subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT).stdout.strip()


def needed(requirements: Iterable[str]) -> Iterator[str]:
    """The names of everything that is imported at run time where these are required, some more than once."""
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)
            yield from needed(distribution(requirement.name).requires or ())


def runtime_lock() -> str:
    """What requirements.lock says of these: versions and hashes."""
    names = set(needed(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]))
    locked = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text())
    kept = [entry for entry in locked if canonicalize_name(re.split(r"[=\[ ]", entry)[0]) in names]
    if len(kept) != len(names):
        raise SystemExit(f"requirements.lock has {len(kept)} of the {len(names)} packages needed: run make lock")
    return "\n".join(kept) + "\n"


def install_library(tree: Path, scratch: Path, python: str) -> None:
    """nftban and what it needs into usr/lib/nftban, compiled for this Python."""
    library = tree / "usr/lib/nftban"
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    lock = scratch / "runtime.lock"
    lock.write_text(runtime_lock())
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", scratch, ROOT)
    (wheel,) = scratch.glob("nftban-*.whl")
    target = (
        *("--target", library, "--no-compile", "--no-deps"),
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", python),
    )
    run(*pip, "install", *target, "--require-hashes", "-r", lock)
    run(*pip, "install", *target, wheel)
    shutil.rmtree(library / "bin", ignore_errors=True)
    for tests in [p for p in library.rglob("tests") if p.is_dir()]:
        shutil.rmtree(tests)
    # Hash-based without a check: what dpkg unpacks is what was compiled, whatever the times of its files.
    run(PYTHON, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", tree, "-p", "/", library)


def install(tree: Path, where: str, text: str, mode: int = 0o644) -> None:
    path = tree / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if where.endswith(".gz") else text.encode())
    path.chmod(mode)


def install_files(tree: Path) -> None:
    install(tree, "usr/bin/nftban", LAUNCHER, 0o755)
    for unit in ("nftban.service", "nftban-restore.service"):
        install(tree, f"usr/lib/systemd/system/{unit}", (ROOT / "contrib/systemd" / unit).read_text())
    install(tree, "usr/lib/sysusers.d/nftban.conf", (ROOT / "contrib/systemd/nftban.sysusers").read_text())
    for page in sorted((ROOT / "docs/man").iterdir()):
        install(tree, f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", page.read_text())
    for shell, where in COMPLETIONS.items():
        install(tree, where, SHELLS[shell](commands()))
    install(tree, "usr/share/doc/nftban/changelog.gz", (ROOT / "docs/CHANGELOG.md").read_text())
    install(tree, "usr/share/doc/nftban/copyright", (HERE / "copyright").read_text())
    head, allow, rest = (ROOT / "rules/nftban.toml").read_text().partition("[allow]")
    install(
        tree,
        "etc/nftban/nftban.toml",
        head.replace("  Copy to /etc/nftban/nftban.toml and change", " Change") + OBSERVE + allow + rest,
    )
    (tree / "etc/nftban/conf.d").mkdir()


def install_control(tree: Path, python: str) -> None:
    """DEBIAN/: who we are, what we need, what happens at installation and removal."""
    files = [p for p in sorted(tree.rglob("*")) if p.is_file()]
    architecture = run("dpkg", "--print-architecture")
    above = f"{python.split('.')[0]}.{int(python.split('.')[1]) + 1}"
    control = (
        (HERE / "control")
        .read_text()
        .format(
            version=f"{__version__}-{REVISION}",
            architecture=architecture,
            size=sum(p.stat().st_size for p in files) // 1024,
            python=f"python3 (>= {python}), python3 (<< {above})",
        )
    )
    sums = [f"{hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest()}  {p.relative_to(tree)}\n" for p in files]
    install(tree, "DEBIAN/control", control)
    install(tree, "DEBIAN/md5sums", "".join(sums))
    install(
        tree, "DEBIAN/conffiles", "".join(f"/{p.relative_to(tree)}\n" for p in files if p.is_relative_to(tree / "etc"))
    )
    for script in ("postinst", "prerm", "postrm"):
        install(tree, f"DEBIAN/{script}", (HERE / script).read_text(), 0o755)


def build(folder: Path) -> Path:
    """The package's file in `folder`."""
    python = run(PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    with tempfile.TemporaryDirectory(prefix="nftban-deb-") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        os.umask(0o022)
        install_library(tree, Path(scratch), python)
        install_files(tree)
        install_control(tree, python)
        tree.chmod(0o755)
        folder.mkdir(parents=True, exist_ok=True)
        said = run("dpkg-deb", "--root-owner-group", "-Zxz", "-z3", "--build", tree, folder.resolve())
    return Path(said.rpartition("'")[0].rpartition("'")[2])


if __name__ == "__main__":
    print(build(Path(sys.argv[1] if len(sys.argv) > 1 else "dist")))
