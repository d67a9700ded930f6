"""nftban ruleset --install: the include file, what nftables.conf lacks, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nftban.cli import ruleset
from nftban.cli.app import main
from nftban.kernel.layout import Layout, Log, Scope, ruleset_text

SETTINGS = """
[kernel]
reject = ["smtp"]
log = "banned: "
log_rate = 5
ingress = ["eth0", "eth1"]
[scopes]
smtp = [25]
"""
LAYOUT = Layout("nftban", (Scope("all"), Scope("smtp", (25,))), ("smtp",), Log("banned: ", 5), ("eth0", "eth1"))


@pytest.fixture(autouse=True)
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's nftables.conf, which does not exist yet; settings and the include file lie beside it."""
    (tmp_path / "nftban.toml").write_text(SETTINGS)
    monkeypatch.setattr(ruleset, "MAIN", (tmp_path / "nftables.conf", tmp_path / "other.conf"))
    monkeypatch.setattr(ruleset, "DEFAULT_PATH", tmp_path / "nftban" / "nftban.nft")
    return tmp_path / "nftables.conf"


def run(conf: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["-c", str(conf.parent / "nftban.toml"), "ruleset", *arguments])
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_every_option_is_in_what_is_printed(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(conf, capsys) == (0, ruleset_text(LAYOUT), "")
    assert not conf.parent.joinpath("nftban").exists()


def test_the_include_file_leaves_the_devices_to_the_daemon(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(conf, capsys, "--install")[0] == 1
    assert ruleset.DEFAULT_PATH.read_text() == ruleset_text(replace(LAYOUT, ingress=()))


def test_from_nothing_to_a_configuration_that_loads_it(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = conf.parent / "here.nft"
    code, out, _ = run(conf, capsys, "--install", str(file))
    assert (code, out.splitlines()[0]) == (1, f"{file}: written")
    assert f"There is no {conf}" in out
    conf.write_text("flush ruleset\n")
    code, out, _ = run(conf, capsys, "--install", str(file))
    assert code == 1
    assert out == (
        f"{file}: unchanged\nAdd at the end of {conf}, behind the flush at {conf}:1:\n" + f'    include "{file}"\n'
    )
    conf.write_text(f'include "{file}"\nflush ruleset\n')
    code, out, _ = run(conf, capsys, "--install", str(file))
    assert code == 1
    assert f'{conf}:1 includes it, but {conf}:2 flushes the ruleset after it. Move behind that:\n    include "' in out
    conf.write_text(f'flush ruleset\ninclude "{file}"\n')
    code, out, _ = run(conf, capsys, "--install", str(file))
    assert (code, out) == (0, f"{file}: unchanged\n{conf}:2 includes it; nothing to do.\n")


def test_as_json(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(ruleset.DEFAULT_PATH)
    other = conf.parent / "other.conf"
    other.write_text("flush ruleset\n")
    code, out, _ = run(conf, capsys, "--install", "--json")
    assert code == 1
    assert json.loads(out) == {
        "path": path, "changed": True, "configuration": str(other), "use": "missing", "include": None,
        "flush": f"{other}:1", "add": f'include "{path}"',
    }  # fmt: skip
    conf.write_text(f'include "{path}"\n')
    code, out, _ = run(conf, capsys, "--install", "--json")
    assert code == 0
    assert json.loads(out) == {
        "path": path, "changed": False, "configuration": str(conf), "use": "loaded", "include": f"{conf}:1",
        "flush": None, "add": None,
    }  # fmt: skip


def test_a_file_without_install_is_a_mistake(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(conf, capsys, "somewhere.nft")
    assert code == 2
    assert "nftban ruleset --install somewhere.nft" in err


def test_what_cannot_be_written_is_said(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(conf, capsys, "--install", str(conf.parent / "nftban.toml" / "below.nft"))
    assert code == 75
    assert "nftban.toml" in err
    code, _, err = run(conf, capsys, "--install", "/proc/nftban.nft")
    assert code == 75
    assert "/proc" in err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('reject = ["ssh"]', "no scope 'ssh'"),
        ('log = "a\\"b"', "log prefix"),
        ('log = "$x"', "log prefix"),
        ("log_rate = 0", "log_rate"),
        ('ingress = ["eth0; drop"]', "network device"),
        ('ingress = ["a-name-that-is-too-long"]', "network device"),
    ],
)
def test_options_that_cannot_be(conf: Path, capsys: pytest.CaptureFixture[str], setting: str, words: str) -> None:
    (conf.parent / "nftban.toml").write_text(f"[kernel]\n{setting}\n")
    code, out, err = run(conf, capsys)
    assert (code, out) == (78, "")
    assert words in err
    assert "nftban.toml:2" in err
