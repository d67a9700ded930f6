"""SPF against RFC 7208: its official test suite, as Debian ships it with python3-spf, and its limits."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nftban.prefixes import Prefix
from nftban.records import SpfResult
from nftban.verify.outcomes import Failed, Missing, Outcome, Records
from nftban.verify.spf import Finding, Question, check_host

SUITE = "usr/share/doc/python3-spf/rfc7208-tests.yml.gz"
TESTS = 203


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The suite's scenarios; unpacked from the package, since systems may leave documentation out on installing."""
    file = Path("/") / SUITE
    if not file.exists():
        if shutil.which("apt-get") is None:
            pytest.skip("neither python3-spf nor apt-get is there")
        folder = tmp_path_factory.mktemp("spf")
        got = subprocess.run(["apt-get", "download", "python3-spf"], cwd=folder, capture_output=True, text=True)
        if got.returncode:
            pytest.skip(f"python3-spf cannot be fetched: {got.stderr[-200:]}")
        (package,) = folder.glob("python3-spf_*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder / "files"], check=True)
        file = folder / "files" / SUITE
    return list(yaml.safe_load_all(gzip.decompress(file.read_bytes()).decode()))


class Zone:
    """The suite's zone data: a list per name of TYPE: VALUE, TIMEOUT, or nothing more than the name.  What is given
    as type SPF only is a TXT record too, which the suite leaves to its driver."""

    def __init__(self, data: dict[str, list[Any]]) -> None:
        self._records = {name.lower(): entries for name, entries in data.items()}
        self.asked: list[Question] = []

    def answer(self, question: Question) -> Outcome:
        self.asked.append(question)
        name = question.name.lower()
        for _ in range(8):
            entries = self._records.get(name)
            if entries is None:
                return Missing(60)
            if "TIMEOUT" in entries:
                before = entries[: entries.index("TIMEOUT")]
                if not any(e.get(question.type, "NONE") != "NONE" for e in before):
                    return Failed("timeout")
            values = list(self._values(entries, question.type))
            if values:
                return Records(tuple(values), 60)
            aliases = [e["CNAME"] for e in entries if isinstance(e, dict) and "CNAME" in e]
            if not aliases:
                return Missing(60, name_exists=True)
            name = aliases[0].lower()
        return Failed("a loop of aliases")

    def _values(self, entries: list[Any], rdtype: str) -> Iterator[str]:
        given = [(kind, value) for e in entries if isinstance(e, dict) for kind, value in e.items()]
        if rdtype == "TXT" and not any(kind == "TXT" for kind, _ in given):
            rdtype = "SPF"
        for kind, value in given:
            if kind != rdtype or value == "NONE":
                continue
            if kind in ("TXT", "SPF"):
                parts = value if isinstance(value, list) else [value]
                # What the resolver does with bytes that are not ASCII.
                yield "".join(parts).encode("latin-1").decode("ascii", "backslashreplace")
            elif kind == "MX":
                yield f"{value[0]} {value[1]}."
            else:
                yield str(value)


def checked(zone: Zone, address: str, domain: str, sender: str, helo: str) -> Finding:
    check = check_host(Prefix.parse(address), domain, sender, helo)
    try:
        question = next(check)
        while True:
            question = check.send(zone.answer(question))
    except StopIteration as end:
        assert isinstance(end.value, Finding)
        return end.value


def test_official_suite(suite: list[dict[str, Any]]) -> None:
    wrong, count = [], 0
    for scenario in suite:
        for name, test in scenario["tests"].items():
            count += 1
            sender = test["mailfrom"] or f"postmaster@{test['helo']}"
            found = checked(Zone(scenario["zonedata"]), test["host"], sender.rpartition("@")[2], sender, test["helo"])
            wanted = test["result"] if isinstance(test["result"], list) else [test["result"]]
            if found.result.value not in wanted:
                wrong.append(f"{scenario['description']}, {name}: {found}, not {' or '.join(wanted)}")
    assert not wrong, "\n".join(wrong)
    assert count == TESTS


def finding(data: dict[str, list[Any]], address: str = "192.0.2.1") -> tuple[Finding, Zone]:
    zone = Zone(data)
    return checked(zone, address, "mail.example.com", "postmaster@mail.example.com", "mail.example.com"), zone


def policy(*terms: str) -> list[Any]:
    return [{"TXT": " ".join(("v=spf1", *terms))}]


def test_ten_terms_ask_and_the_eleventh_is_a_permerror() -> None:
    hosts = {f"h{n}.example.com": [{"A": "198.51.100.1"}] for n in range(12)}
    terms = [f"a:h{n}.example.com" for n in range(12)]
    found, _ = finding({"mail.example.com": policy(*terms[:10], "-all"), **hosts})
    assert found.result is SpfResult.FAIL
    found, zone = finding({"mail.example.com": policy(*terms[:11], "-all"), **hosts})
    assert (found.result, found.why) == (SpfResult.PERMERROR, "mail.example.com: more than 10 terms ask DNS")
    assert len(zone.asked) == 1 + 10


def test_two_void_questions_and_the_third_is_a_permerror() -> None:
    found, _ = finding({"mail.example.com": policy("a:no1.example.com", "a:no2.example.com", "-all")})
    assert found.result is SpfResult.FAIL
    found, zone = finding({"mail.example.com": policy(*(f"exists:no{n}.example.com" for n in range(5)), "-all")})
    assert (found.result, found.why) == (SpfResult.PERMERROR, "mail.example.com: more than 2 questions came to nothing")
    assert len(zone.asked) == 1 + 3


def test_an_include_of_oneself_ends() -> None:
    found, zone = finding({"mail.example.com": policy("include:mail.example.com", "-all")})
    assert found.result is SpfResult.PERMERROR
    assert len(zone.asked) == 11


def test_the_worst_policy_asks_122_questions() -> None:
    names = [f"n{n}.example.com" for n in range(12)]
    data: dict[str, list[Any]] = {
        "mail.example.com": policy(*(f"mx:%{{p}}.x{n}.example.com" for n in range(10)), "-all"),
        "1.2.0.192.in-addr.arpa": [{"PTR": name} for name in names],
        **{f"unknown.x{n}.example.com": [{"MX": [10, name]} for name in names[:10]] for n in range(10)},
        **{name: [{"A": "198.51.100.1"}] for name in names},
    }
    found, zone = finding(data)
    assert found.result is SpfResult.FAIL
    assert len(zone.asked) == 122


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("v=spf1 a:%{x}.example.com -all", "faulty macro"),
        ("v=spf1 ip4:192.0.2.0/33 -all", "no address"),
        ("v=spf1 ip6:192.0.2.0 -all", "no address"),
        ("v=spf1 a//129 -all", "wrong prefix length"),
        ("v=spf1 redirect=a.example redirect=b.example", "redirect= twice"),
        ("v=spf1 " + "%{d999999999999999999999999}" * 3, "is no term"),
        ("v=spf1 a:" + "a." * 5000 + "example", "more than"),
        ("v=spf1 -all " + "x" * 100_000, "is no term"),
    ],
)
def test_hostile_policies(text: str, why: str) -> None:
    terms = [text] if "more than" not in why else [text, *(["a:no.example.com"] * 3)]
    found, _ = finding({"mail.example.com": [{"TXT": " ".join(terms)}]})
    assert found.result is SpfResult.PERMERROR
    assert why in found.why
