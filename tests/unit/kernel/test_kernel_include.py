from __future__ import annotations

from pathlib import Path

import pytest

from nftban.kernel import include
from nftban.kernel.include import Found, Use


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return tmp_path / "nftables.conf"


@pytest.fixture
def snippet(tmp_path: Path) -> Path:
    return tmp_path / "nftban.nft"


def test_written_only_if_changed_and_readable_by_all(snippet: Path) -> None:
    assert include.write(snippet, "one\n")
    inode = snippet.stat().st_ino
    assert not include.write(snippet, "one\n")
    assert snippet.stat().st_ino == inode
    assert include.write(snippet, "two\n")
    assert snippet.read_text() == "two\n"
    assert snippet.stat().st_mode & 0o777 == 0o644
    snippet.chmod(0o600)
    assert include.write(snippet, "two\n")
    assert snippet.stat().st_mode & 0o777 == 0o644
    assert list(snippet.parent.iterdir()) == [snippet]


def test_a_link_stays_a_link_and_a_folder_is_made(tmp_path: Path, snippet: Path) -> None:
    snippet.symlink_to(tmp_path / "made" / "real.nft")
    assert include.write(snippet, "text\n")
    assert snippet.is_symlink()
    assert (tmp_path / "made" / "real.nft").read_text() == "text\n"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, snippet: Path) -> None:
    include.write(snippet, "old\n")
    with pytest.raises(UnicodeEncodeError):
        include.write(snippet, "\ud800")
    assert snippet.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [snippet]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (Use.MISSING, 0, 0)),
        ("flush ruleset\n", (Use.MISSING, 0, 1)),
        ('include "{}"\n', (Use.LOADED, 1, 0)),
        ('#!/usr/sbin/nft -f\n\nflush ruleset\ntable inet f {{\n}}\ninclude "{}"', (Use.LOADED, 6, 3)),
        ('include "{}"\nflush ruleset\n', (Use.FLUSHED, 1, 2)),
        ('flush ruleset; include "{}"; list ruleset', (Use.LOADED, 1, 1)),
        ('include "{}"; flush  ruleset   inet # all', (Use.FLUSHED, 1, 1)),
        ('include "{}"\nflush ruleset\ninclude "{}"', (Use.LOADED, 3, 2)),
        ('include "{}"\nflush ruleset ip\nflush ruleset ip6', (Use.LOADED, 1, 0)),
        ('# include "{}"\n', (Use.MISSING, 0, 0)),
        ('define x = "#"; include "{}"\n# flush ruleset\n', (Use.LOADED, 1, 0)),
        ('\n\ninclude \\\n  "{}"\nflush \\\nruleset', (Use.FLUSHED, 4, 6)),
        ('include "{}.bak"\n', (Use.MISSING, 0, 0)),
        ('comment "an open end\ninclude "{}"\n', (Use.LOADED, 2, 0)),
    ],
)
def test_what_a_configuration_makes_of_it(main: Path, snippet: Path, text: str, expected: tuple[Use, int, int]) -> None:
    main.write_text(text.format(snippet, snippet))
    use, *lines = expected
    assert include.use(main, snippet) == Found(use, *(f"{main}:{line}" if line else "" for line in lines))


def test_through_other_includes_and_wildcards(
    main: Path, snippet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(include, "INCLUDE_FOLDER", tmp_path)
    folder = tmp_path / "rules.d"
    folder.mkdir()
    main.write_text('include "rules.d/*.nft"\n')
    assert include.use(main, snippet) == Found(Use.MISSING)
    (folder / "20-ban.nft").write_text(f'include "{snippet}"\n')
    (folder / "10-first.nft").write_text("\nflush ruleset\n")
    assert include.use(main, snippet) == Found(Use.LOADED, f"{folder}/20-ban.nft:1", f"{folder}/10-first.nft:2")
    (folder / "30-last.nft").write_text("flush ruleset\n")
    assert include.use(main, snippet).use is Use.FLUSHED
    main.write_text('include "rules.d/*.nft"\ninclude "rules.d/10-first.nft"\ninclude "*.nft"\n')
    snippet.touch()
    assert include.use(main, snippet) == Found(Use.LOADED, f"{main}:3", f"{folder}/10-first.nft:2")


def test_files_that_include_each_other_come_to_an_end(main: Path, snippet: Path) -> None:
    main.write_text(f'include "{main}"\nflush ruleset\n')
    assert include.use(main, snippet) == Found(Use.MISSING, "", f"{main}:2")


def test_no_configuration(main: Path, snippet: Path) -> None:
    assert include.use(main, snippet) == Found(Use.NO_CONFIGURATION)
