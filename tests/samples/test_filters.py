"""Every line of every rules/filters/*.samples means what the line below it says.

The format is told at the top of rules/filters/postfix.samples.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nftban.config.load import load
from nftban.detect import filterfile
from nftban.detect.matcher import Logged, Matcher
from nftban.records import Login, LogLine, Offence, Service

FILTERS = Path(__file__).parents[2] / "rules" / "filters"
DOCUMENTATION = (FILTERS.parents[1] / "docs" / "filters.md").read_text()
NOW = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
DEFAULT_SERVICE = {
    "dovecot": Service.IMAP,
    "postfix": Service.SMTP,
    "sshd": Service.SSH,
}  # all others: other


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def blocks(file: Path) -> list[tuple[str, list[tuple[int, str, str]]]]:
    """The sequences of a samples file: the filter's spec, and (number, log line, expectation) triples."""
    out: list[tuple[str, list[tuple[int, str, str]]]] = []
    waiting: tuple[int, str] | None = None
    for number, line in enumerate(file.read_text().split("\n"), 1):
        if line.startswith("    "):
            assert waiting is not None, f"{file}:{number}: an expectation without a line"
            out[-1][1].append((*waiting, line.strip()))
            waiting = None
            continue
        assert waiting is None, f"{file}:{number}: the line above has no expectation"
        if line.startswith("[") and line.endswith("]"):
            out.append((file.stem + line, []))
        elif line and not line.startswith("#"):
            waiting = (number, line)
    return out


def told(result: Offence | Login | Logged | None, usual: Service) -> str:
    """A result in the notation of the samples."""
    if result is None:
        return "-"
    at = datetime.fromtimestamp(result.time, UTC).isoformat().replace("+00:00", "Z")
    if isinstance(result, Login):
        words = ["login", str(result.prefix), at] + ([f"user={result.user}"] if result.user else [])
        return shlex.join(words)
    words = ["offence" if isinstance(result, Offence) else "evidence", str(result.prefix), at]
    if isinstance(result, Offence) and result.service != usual:
        words.append(f"service={result.service}")
    facts = dict(result.facts)
    words += [f"{name}={facts[name]}" for name in ("user", "helo", "ptr") if name in facts]
    words += [f"listed={zone}={code}" if code else f"listed={zone}" for zone, code in result.listed]
    return shlex.join(words)


SAMPLES = [(spec, lines) for file in sorted(FILTERS.glob("*.samples")) for spec, lines in blocks(file)]


def test_every_filter_has_samples() -> None:
    with_samples = {spec.partition("[")[0] for spec, lines in SAMPLES if any(said != "-" for _, _, said in lines)}
    assert set(filterfile.available([FILTERS])) - {"common"} == with_samples


@pytest.mark.parametrize(("spec", "lines"), SAMPLES, ids=[spec for spec, _ in SAMPLES])
def test_samples(spec: str, lines: list[tuple[int, str, str]]) -> None:
    loaded = filterfile.load(spec, [FILTERS])
    assert isinstance(loaded, filterfile.Filter), loaded
    matcher = Matcher(loaded)
    for number, line, expected in lines:
        result = matcher.match(LogLine("mail.log", line), NOW)
        assert told(result, DEFAULT_SERVICE.get(loaded.name, Service.OTHER)) == expected, (
            f"{loaded.name}.samples:{number}: {line}"
        )


def test_each_mode_has_samples_and_is_told_in_the_filter_s_header() -> None:
    shown = {spec for spec, _ in SAMPLES}
    for name in filterfile.available([FILTERS]):
        text = (FILTERS / f"{name}.conf").read_text()
        header = text.partition("[INCLUDES]")[0].partition("[DEFAULT]")[0]
        told_modes = set(re.findall(r"^#   ([a-z]+)  ", header, re.MULTILINE))
        modes = set(re.findall(r"^re-([a-z]+) = ", text, re.MULTILINE)) if "<re-<mode>>" in text else set()
        assert told_modes <= modes, f"{name}: a mode that is told is there"
        for mode in told_modes:
            assert f"{name}[mode={mode}]" in shown, f"{name}: samples of mode {mode}"
        assert ("mode = normal" in text) == bool(told_modes), name


def test_the_documentation_names_every_filter_and_its_modes() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \|[^|]*\| ([^|]*) \|", DOCUMENTATION, re.MULTILINE))
    assert set(rows) == set(filterfile.available([FILTERS])) - {"common"}
    for name, modes in rows.items():
        told_modes = {spec.partition("[mode=")[2].rstrip("]") for spec, _ in SAMPLES if spec.startswith(name + "[")}
        assert set(modes.strip("- ").split(", ")) - {""} == told_modes - {""}, name


def test_the_documentation_s_jails_load(tmp_path: Path) -> None:
    """With them every filter has a jail, beside the shipped settings."""
    (toml,) = re.findall(r"```toml\n(.*?)```", DOCUMENTATION, re.DOTALL)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "nftban.toml").write_text((FILTERS.parent / "nftban.toml").read_text())
    (tmp_path / "conf.d" / "jails.toml").write_text(toml)
    specs = [jail.filter for jail in load(tmp_path / "nftban.toml").settings.jail.values() if jail.enabled]
    assert all(isinstance(filterfile.load(spec, [FILTERS]), filterfile.Filter) for spec in specs)
    assert {spec.partition("[")[0] for spec in specs} == set(filterfile.available([FILTERS])) - {"common"}
