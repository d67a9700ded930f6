"""Every line of every rules/filters/*.samples means what the line below it says.

The format is told at the top of rules/filters/postfix.samples.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nftban.detect import filterfile
from nftban.detect.matcher import Logged, Matcher
from nftban.records import Login, LogLine, Offence, Service

FILTERS = Path(__file__).parents[2] / "rules" / "filters"
NOW = datetime(2026, 11, 25, tzinfo=UTC).timestamp()
DEFAULT_SERVICE = {"postfix": Service.SMTP, "sshd": Service.SSH}


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
    with_samples = {spec.partition("[")[0] for spec, lines in SAMPLES if lines}
    assert set(filterfile.available([FILTERS])) - {"common"} == with_samples


@pytest.mark.parametrize(("spec", "lines"), SAMPLES, ids=[spec for spec, _ in SAMPLES])
def test_samples(spec: str, lines: list[tuple[int, str, str]]) -> None:
    loaded = filterfile.load(spec, [FILTERS])
    assert isinstance(loaded, filterfile.Filter), loaded
    matcher = Matcher(loaded)
    for number, line, expected in lines:
        result = matcher.match(LogLine("mail.log", line), NOW)
        assert told(result, DEFAULT_SERVICE[loaded.name]) == expected, f"{loaded.name}.samples:{number}: {line}"


@pytest.mark.parametrize(("spec", "lines"), SAMPLES, ids=[spec for spec, _ in SAMPLES])
def test_each_mode_is_told_in_the_filter_s_header(spec: str, lines: list[tuple[int, str, str]]) -> None:
    name, _, mode = spec.partition("[mode=")
    header = (FILTERS / f"{name}.conf").read_text().partition("[INCLUDES]")[0]
    assert f"#   {mode.rstrip(']')} " in header
