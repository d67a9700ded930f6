"""[notify] and [daemon] metrics: what is refused, what is never shown, and that every kind of event is known."""

from __future__ import annotations

import ast
import json
import sys
import tomllib
from pathlib import Path

import pytest

from nftban.cli.app import main
from nftban.config.schema import EVENT_KINDS, Notify
from nftban.daemon.assemble import checked
from nftban.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[3] / "nftban"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("hook = 'tell-me'", "'tell-me' is no full path"),
        ("hook = ['/bin/true', 5]", "notify.hook.1"),
        ("hook = ['/bin/true', \"a\\u0000b\"]", "holds a zero byte"),
        ("at_once = ['zone', 'zones']", "'zones' is no kind of event; there are: ban, ban-failed, "),
        ("timeout = 0", "must be more than 0"),
        ("digest = 'often'", "not a duration"),
        ("storm = 1", "it must be at least 2"),
        ("url = 'json://x'", "did you mean urls?"),
        ("urls = ['nonsense://topsecret']", "entry 1 (nonsense://...) is no URL that apprise knows"),
        ("urls = ['json://127.0.0.1', '//topsecret@x']", "notify.urls: entry 2"),
    ],
)
def test_what_is_refused_and_a_url_is_not_said(written: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text(f"[notify]\n{written}\n")
    with pytest.raises(ConfigError) as caught:
        checked(file)
    (fault,) = caught.value.faults
    assert said in str(fault) and "topsecret" not in str(fault)
    assert (fault.file, fault.line) == (str(file), 2)


@pytest.mark.parametrize("path", ["nftban.prom", "/var/lib/nftban.txt", "/run/nftban/prom"])
def test_a_file_that_node_exporter_would_not_read_is_refused(path: str, tmp_path: Path) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text(f"[daemon]\nmetrics = '{path}'\n")
    with pytest.raises(ConfigError, match=r"full path that ends in \.prom"):
        checked(file)


def test_without_apprise_the_fault_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)  # as if it were not installed
    file = tmp_path / "nftban.toml"
    file.write_text("[notify]\nurls = ['json://topsecret@127.0.0.1']\n")
    with pytest.raises(ConfigError) as caught:
        checked(file)
    assert "needs apprise" in str(caught.value) and "pip install 'nftban[notify]'" in str(caught.value)
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_config_show_masks_urls(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nftban.toml"
    file.write_text("[notify]\nhook = ['/bin/true', 'x']\nurls = ['mailto://me:topsecret@example.org', 'topsecret']\n")
    with pytest.raises(SystemExit) as ended:
        main(["-c", str(file), "config", "show", *options])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "topsecret" not in out and "example.org" not in out
    shown = json.loads(out) if options else tomllib.loads(out)
    assert shown["notify"]["urls"] == ["mailto://...", "..."]
    assert shown["notify"]["hook"] == ["/bin/true", "x"]


def reported() -> set[str]:
    """The kinds of all events that the code makes."""
    kinds: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        if file.name == "delivery.py":  # what a trial sends is not reported
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in ("Event", "_tell") and len(node.args) >= 3 and isinstance(node.args[1], ast.Constant):
                kinds.add(str(node.args[1].value))
    return kinds


def test_every_kind_of_event_is_known_and_no_other() -> None:
    found = reported()
    assert found - set(EVENT_KINDS) == set(), "name it in config/schema.py, EVENT_KINDS"
    assert set(EVENT_KINDS) - found == set(), "nothing reports it"
    assert set(Notify().at_once) <= set(EVENT_KINDS)
