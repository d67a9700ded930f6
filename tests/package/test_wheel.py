"""The wheel: it has all data inside, and works from an environment of its own, as pipx and uv make them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        ".",
    ]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)
    (made,) = folder.iterdir()
    return made


def test_every_module_and_rule_is_in_it(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {p.relative_to(ROOT).as_posix() for p in (ROOT / "nftban").rglob("*.py")}
    data = {f"nftban/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "rules").rglob("*") if p.is_file()}
    assert ours | data <= inside
    assert not [name for name in inside if name.startswith(("tests", "contrib", "docs"))]


def test_it_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """What it imports comes from here, itself from the wheel alone."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path[:0] = [sys.argv.pop(1)]; import nftban.config.load as l; "
        "assert str(l.shipped_rules()).startswith(sys.path[0]), l.shipped_rules(); "
        "from nftban.cli.app import main; main()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), "config", "check", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.package
def test_a_fresh_environment_gets_all_it_needs(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True, timeout=100)
    subprocess.run([tmp_path / "bin/pip", "install", "--quiet", str(wheel)], check=True, timeout=300)
    for words in (
        ["--version"],
        ["config", "check"],
        ["ruleset"],
        ["filter", "test", "postfix", "/dev/null", "--json"],
    ):
        done = subprocess.run(
            [tmp_path / "bin/nftban", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode in (0, 1) and done.stderr == "", (words, done.stderr)
