"""Log files of every kind that logrotate and journalctl leave."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nftban.errors import UsageError
from nftban.replay.logs import PIECE, chunks, series_of

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC).timestamp()


def lines(day: int, count: int = 3) -> bytes:
    return b"".join(b"2026-11-%02dT08:00:%02d+00:00 mail app[1]: line %d\n" % (day, n % 60, n) for n in range(count))


def zstd(data: bytes) -> bytes:
    compressed: bytes = importlib.import_module("zstandard").ZstdCompressor().compress(data)
    return compressed


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compressed_logs_are_known_by_their_first_bytes(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    if pack is zstd:
        pytest.importorskip("zstandard")
    file = tmp_path / "mail.log.1"  # a name that says nothing
    file.write_bytes(pack(lines(20, 50_000)))
    (series,) = series_of([file], NOW)
    read: list[int] = []
    found = [chunk.data for chunk in chunks(series.files[0], series.name, read.append)]
    assert b"".join(found) == lines(20, 50_000)
    assert all(len(data) <= 2 * PIECE for data in found)
    assert sum(read) == file.stat().st_size


def test_what_was_rotated_is_one_log_in_the_order_of_time(tmp_path: Path) -> None:
    for name, day in (("mail.log", 23), ("mail.log.1", 22), ("mail.log.10.gz", 20), ("mail.log-20261121.gz", 21)):
        data = lines(day)
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "auth.log").write_bytes(lines(1))
    series = series_of(sorted(tmp_path.iterdir()), NOW)
    assert [Path(each.name).name for each in series] == ["auth.log", "mail.log"]
    assert [file.path.name for file in series[1].files] == [
        "mail.log.10.gz",
        "mail.log-20261121.gz",
        "mail.log.1",
        "mail.log",
    ]


def test_a_file_given_twice_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "mail.log"
    file.write_bytes(lines(1))
    (tmp_path / "link").symlink_to(file)
    ((series),) = series_of([file, file, tmp_path / "link"], NOW)
    assert len(series.files) == 1


def test_dates_without_a_year_are_of_when_the_file_was_written(tmp_path: Path) -> None:
    file = tmp_path / "mail.log"
    file.write_text("Mar  3 10:00:00 mail app[1]: x\n")
    written = datetime(2024, 3, 4, tzinfo=UTC).timestamp()
    os.utime(file, (written, written))
    ((file_2024,),) = (each.files for each in series_of([file], NOW))
    assert file_2024.first is not None
    assert datetime.fromtimestamp(file_2024.first, UTC).year == 2024


def test_a_file_whose_time_cannot_be_right_is_dated_from_now(tmp_path: Path) -> None:
    """Unpacked from an archive that gives every file the same old date."""
    file = tmp_path / "mail.log"
    file.write_bytes(lines(20))
    os.utime(file, (0, 0))
    ((found,),) = (each.files for each in series_of([file], NOW))
    assert (found.now, found.first) == (NOW, datetime(2026, 11, 20, 8, tzinfo=UTC).timestamp())


def test_a_damaged_file_is_read_as_far_as_it_goes_and_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mail.log.2.gz"
    whole = gzip.compress(os.urandom(300_000).hex().encode() + b"\n" + lines(20))
    file.write_bytes(whole[: len(whole) // 2])
    (series,) = series_of([file], NOW)
    notes: list[str] = []
    found = list(chunks(series.files[0], series.name, note=notes.append))
    assert sum(len(chunk.data) for chunk in found) > 0
    assert len(notes) == 1
    assert "mail.log.2.gz cannot be read to its end" in notes[0]


def test_an_export_of_the_journal_is_lines(tmp_path: Path) -> None:
    file = tmp_path / "journal.export"
    entry = (
        b"__CURSOR=s=%d\n__REALTIME_TIMESTAMP=%d\n_HOSTNAME=mail\nSYSLOG_IDENTIFIER=sshd\n_PID=7\nMESSAGE=hello %d\n"
    )
    times = [int(NOW * 1_000_000) + n for n in range(3)]
    file.write_bytes(b"\n".join(entry % (n, time, n) for n, time in enumerate(times)))  # the last has no empty line
    (series,) = series_of([file], NOW)
    found = [line.text for chunk in chunks(series.files[0], series.name) for line in chunk]
    assert found == [f"2026-11-24T10:00:00.{n:06d}+00:00 mail sshd[7]: hello {n}" for n in range(3)]
    assert series.files[0].first == NOW


def test_what_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match=path.name):
            series_of([path], NOW)
