"""nftban feed, on a list in a file: what it says, what it keeps, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nftban.cli.app import main

LIST = "".join(f"45.0.0.{n}\n" for n in range(0, 200, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules" / "feeds").mkdir(parents=True)
    (tmp_path / "rules" / "feeds" / "own.toml").write_text(
        f'[[feed]]\nname = "own"\nformat = "netset"\nfile = "{tmp_path}/list"\n'
    )
    (tmp_path / "nftban.toml").write_text(f'[feeds]\ncache = "{tmp_path}/cache"\n[feed.own]\nenforce = true\n')
    (tmp_path / "list").write_text(LIST)
    return tmp_path


def run(folder: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(folder / "nftban.toml"), "feed", *words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_sync_keeps_and_list_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "sync") == 0
    assert "updated" in capsys.readouterr().out
    assert run(folder, "sync") == 0
    assert capsys.readouterr().out == "no feed is due\n"
    assert run(folder, "list", "--json") == 0
    (own,) = [row for row in json.loads(capsys.readouterr().out)["feeds"] if row["in_use"]]
    assert (own["name"], own["entries"], own["enforce"], own["refused"]) == ("own", 100, True, None)
    assert own["due"] > own["tried"] + own["interval"] - 1 and own["good_until"] > own["due"] + own["interval"]
    assert run(folder, "list") == 0
    assert "stopped (all)" in capsys.readouterr().out


def test_what_is_refused_is_said_and_not_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "sync")
    (folder / "list").write_text(LIST + "8.8.8.8\n")
    good = (folder / "cache" / "own.copy").read_bytes()
    capsys.readouterr()
    assert run(folder, "sync", "own", "--json") == 1
    (row,) = json.loads(capsys.readouterr().out)["feeds"]
    assert row["result"] == "refused" and "8.8.8.8" in row["why"]
    assert (folder / "cache" / "own.copy").read_bytes() == good
    assert run(folder, "diff", "own") == 75
    assert run(folder, "test", "own") == 1


def test_a_dry_run_keeps_nothing(folder: Path) -> None:
    assert run(folder, "sync", "--dry-run") == 0
    assert not list((folder / "cache").glob("own.*"))


def test_growth_is_held_until_it_is_accepted(folder: Path) -> None:
    run(folder, "sync")
    (folder / "list").write_text("".join(f"45.0.{n // 100}.{n % 100}\n" for n in range(300)))
    assert run(folder, "sync", "own") == 1
    assert run(folder, "sync", "own", "--accept") == 0


def test_diff_names_what_comes_and_goes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "sync")
    capsys.readouterr()
    assert run(folder, "diff", "own") == 0
    assert capsys.readouterr().out.strip() == ""
    (folder / "list").write_text(LIST.replace("45.0.0.2\n", "46.0.0.0/24\n"))
    assert run(folder, "diff", "own", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {"name": "own", "added": ["46.0.0.0/24"], "removed": ["45.0.0.2"]}


def test_test_reads_a_file_as_any_feed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "drop").write_text('{"cidr":"45.0.0.0/24"}\n' * 300 + '{"type":"metadata","records":300}\n')
    assert run(folder, "test", "spamhaus-drop", "--file", str(folder / "drop"), "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["entries"], row["addresses"], row["ranges"]) == (300, 256, 1)
    assert not (folder / "cache").exists()


@pytest.mark.parametrize("words", [("sync", "none"), ("sync", "cins"), ("test", "none"), ("diff", "none")])
def test_a_feed_that_is_not_there_is_a_usage_error(folder: Path, words: tuple[str, str]) -> None:
    assert run(folder, *words) == 2


def test_a_table_for_no_feed_is_a_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "nftban.toml").open("a") as file:
        file.write("[feed.nowhere]\nenforce = true\n")
    assert run(folder, "list") == 78
    assert "nowhere" in capsys.readouterr().err
