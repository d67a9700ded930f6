"""Durations and ports as admins write them."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pytest

from nftban.config.words import ban_seconds, in_words, port_list, port_number, seconds


@pytest.mark.parametrize(
    ("written", "length"),
    [
        (600, 600.0),
        (0.5, 0.5),
        ("600", 600.0),
        ("10m", 600.0),
        (" 10 min ", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1H", 3600.0),
        ("1.5h", 5400.0),
        ("2 days", 172800.0),
        ("1w", 604800.0),
        ("1mo", 2629800.0),
        ("1y", 31557600.0),
        ("1d12h", 129600.0),
        ("1d+12h", 129600.0),
        ("100y", 100 * 31557600.0),
    ],
)
def test_durations(written: object, length: float) -> None:
    assert seconds(written) == length
    assert ban_seconds(written) == length


@pytest.mark.parametrize(
    "written",
    [
        0,
        -1,
        -0.0,
        math.nan,
        math.inf,
        -math.inf,
        True,
        False,
        None,
        [],
        ["10m"],
        "",
        " ",
        "m",
        "-10m",
        "+10m",
        "10 fortnights",
        "10m,",
        "1e3",
        "0x10",
        "1_000",
        "10m\x00",
        "٣m",
        "\uff13m",
        "1.m",
        ".5h",
        "0s",
        "1" * 400,
        "101y",
        "permanent ",
        "Permanent",
    ],
)
def test_what_is_no_duration(written: object) -> None:
    for read in (seconds, ban_seconds):
        with pytest.raises(ValueError, match=r"duration|more than 0|would ban for ever"):
            read(written)


def test_permanent_is_a_word_of_bans_only() -> None:
    assert ban_seconds("permanent") is None
    with pytest.raises(ValueError, match="is not a duration"):
        seconds("permanent")
    for minus_one in (-1, "-1", -1.0):
        with pytest.raises(ValueError, match='write bantime = "permanent"'):
            ban_seconds(minus_one)


@pytest.mark.parametrize(
    ("written", "ports"),
    [
        (25, (25,)),
        ("25", (25,)),
        ("smtp,ssmtp,submission", (25, 465, 587)),
        (" smtp ,\t465 submission ", (25, 465, 587)),
        ("SMTP", (25,)),
        ([25, "25", "imap"], (25, 143)),
        ((993, "110:112"), (110, 111, 112, 993)),
        ("65535", (65535,)),
        ("ssh", (22,)),
    ],
)
def test_ports(written: object, ports: tuple[int, ...]) -> None:
    assert port_list(written) == ports


@pytest.mark.parametrize(
    "written",
    [
        "",
        " , ",
        [],
        0,
        -1,
        65536,
        "0",
        "65536",
        "9" * 5000,
        25.0,
        True,
        None,
        [[25]],
        {"a": 1},
        "smtpp",
        "2:1",
        "1:",
        ":1",
        "1:2:3",
        "1-2",
        "٢٥",
        "²",
        "smtp\x00",
        "\udcff",
        "x" * 10_000,
    ],
)
def test_what_is_no_port(written: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        port_list(written)


@pytest.mark.skipif(not Path("/etc/services").exists(), reason="needs /etc/services, of Debian's netbase")
def test_services_of_this_machine_are_known_too() -> None:
    assert port_number("smtp") == 25
    assert port_number("nntp") == socket.getservbyname("nntp", "tcp")


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (None, "permanent"),
        (0, "0s"),
        (-5, "0s"),
        (0.4, "0s"),
        (0.6, "1s"),
        (59.6, "1m"),
        (90, "1m30s"),
        (600, "10m"),
        (3600, "1h"),
        (3601, "1h1s"),
        (86399, "23h59m"),
        (90061, "1d1h"),
        (604800, "7d"),
    ],
)
def test_durations_in_words(length: float | None, words: str) -> None:
    assert in_words(length) == words


def test_words_of_two_units_are_read_back() -> None:
    for length in (1, 59, 60, 61, 3600, 5400, 86400, 90000, 604800):
        assert seconds(in_words(length)) == length
