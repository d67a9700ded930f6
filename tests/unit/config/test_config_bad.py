"""Bad configurations, one file per fault: each begins with the faults it must give, `# LINE: FRAGMENT [-> ADVICE]`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nftban.config.load import load
from nftban.errors import EXIT_CONFIG, ConfigError, Fault

CORPUS = sorted(Path(__file__).with_name("bad").glob("*.toml"))
EXPECTED = re.compile(r"# (\d+): (.*?)(?: -> (.*))?")


def expected_of(file: Path) -> list[tuple[int, str, str]]:
    expected = []
    for line in file.read_text("utf-8").splitlines():
        found = EXPECTED.fullmatch(line)
        if found is None:
            break
        expected.append((int(found[1]), found[2], found[3] or ""))
    return expected


def faults_of(file: Path) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert raised.value.exit_code == EXIT_CONFIG
    return raised.value.faults


@pytest.mark.parametrize("file", CORPUS, ids=lambda f: f.stem)
def test_exactly_the_stated_faults_at_their_lines(file: Path) -> None:
    expected, faults = expected_of(file), faults_of(file)
    assert expected, "the file does not say what is wrong with it"
    assert [f.line for f in faults] == [line for line, _, _ in expected]
    for fault, (_, fragment, advice) in zip(faults, expected, strict=True):
        assert fragment in fault.what
        assert fault.advice == advice
        assert fault.file == str(file)


@pytest.mark.parametrize("file", CORPUS, ids=lambda f: f.stem)
def test_each_named_line_is_one_the_admin_wrote(file: Path) -> None:
    lines = file.read_text("utf-8").splitlines()
    for fault in faults_of(file):
        assert 1 <= fault.line <= len(lines) + 1
        assert fault.line > len(expected_of(file))


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 50


def test_all_faults_of_one_file_are_printed_with_file_line_and_advice() -> None:
    (file,) = (f for f in CORPUS if f.stem == "five-faults-at-once")
    with pytest.raises(ConfigError) as raised:
        load(file)
    printed = str(raised.value)
    assert printed.splitlines()[0] == f"{len(expected_of(file))} faults in the configuration:"
    assert len(expected_of(file)) >= 5
    for line, fragment, advice in expected_of(file):
        assert f"{file}:{line}: {fragment}" in printed
        assert advice in printed
    assert "    did you mean zones?" in printed
