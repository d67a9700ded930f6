"""The data files about zones."""

from __future__ import annotations

from pathlib import Path

import pytest

from nftban.verify.providers import load_providers, parse_providers
from nftban.verify.zones import Provider, packed_address


def test_the_shipped_files_name_every_zone_once(providers: tuple[Provider, ...]) -> None:
    names = [name for p in providers for name in (*p.names, *p.keyed)]
    assert len(names) == len(set(names))
    assert {"zen.spamhaus.org", "bl.blocklist.de", "list.dnswl.org", "bl.spamcop.net"} <= set(names)
    for provider in providers:
        assert bool(provider.refused) != bool(provider.codes)
        assert provider.refused or packed_address("127.0.0.2") in provider.test_listed


def test_zones_without_ipv6_have_no_ipv6_test_points(providers: tuple[Provider, ...]) -> None:
    by_name = {name: p for p in providers for name in p.names}
    assert {len(a) for a in by_name["zen.spamhaus.org"].test_listed} == {4, 16}
    assert {len(a) for a in by_name["bl.spamcop.net"].test_listed} == {4}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = [", "not TOML"),
        ('[[zones]]\nnames = ["a.b"]', "unknown table 'zones'"),
        ("zone = 3", "not a list"),
        ("[[zone]]", "no names"),
        ('[[zone]]\nnames = ["a.b"]\nweight = 3', "unknown key 'weight'"),
        ('[[zone]]\nnames = ["a.b"]\nlimit = true', "limit must be"),
        ('[[zone]]\nnames = ["a.b"]\ncodes = [{ code = "127.0.0.300", meaning = "x" }]', "number from 0 to 255"),
        ('[[zone]]\nnames = ["a.b"]\ncodes = [{ code = "127.0.0.2" }]', "'meaning' is missing"),
        ('[[zone]]\nnames = ["a.b"]\ncodes = [{ code = "127.0.0.2", meaning = "x", polcy = true }]', "'polcy'"),
        ('[[zone]]\nnames = ["a.b"]\ncodes = [{ code = 127, meaning = "x" }]', "number 1"),
        ('[[zone]]\nnames = ["a.b"]\ntest_listed = ["localhost"]', "not an address"),
    ],
)
def test_faults_are_told_and_leave_the_other_tables(text: str, words: str) -> None:
    found, (fault,) = parse_providers(text, "x.toml")
    assert not found
    assert words in fault.what and fault.file == "x.toml"
    if text.startswith("[[zone]]\nnames"):
        both, faults = parse_providers(f'[[zone]]\nnames = ["good.example"]\n{text}', "x.toml")
        assert [p.names for p in both] == [("good.example",)] and len(faults) == 1


def test_an_admins_file_masks_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    for directory, limit in ((own, 5), (shipped, 100)):
        directory.mkdir()
        (directory / "a.toml").write_text(f'[[zone]]\nnames = ["a.example"]\nlimit = {limit}')
    (shipped / "b.toml").write_text('[[zone]]\nnames = ["b.example"]')
    (own / "c.toml").write_bytes(b"\xff\xfe")
    found, (fault,) = load_providers([own, shipped, tmp_path / "missing"])
    assert {(p.names, p.limit) for p in found} == {(("a.example",), 5), (("b.example",), None)}
    assert fault.file.endswith("c.toml") and "cannot be read" in fault.what
