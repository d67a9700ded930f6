"""The page of `nftban replay --report`, opened in a real browser that is shut off from every network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nftban.prefixes import Prefix
from nftban.records import Answer, Evidence, Listing
from nftban.replay.figures import zones_agreement
from nftban.replay.whole import replay
from nftban.report.pages.markup import element
from nftban.report.pages.replay import page
from tests.unit.replay.test_whole import BOT, CUSTOMER, JAILS, SILENT, accepted, at, guess, settings, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = "<script>document.title='owned'</script><img/src=http://192.0.2.9/x/onerror=alert(1)>\"'&amp;\u202e"

browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


class Dom(HTMLParser):
    """Every element with its attributes, and its text up to the next element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def plot(self, name: str) -> list[int]:
        """The numbers of a plot's marks."""
        numbers: list[int] = []
        inside = False
        for tag, attributes in self.elements:
            if tag in ("svg", "table"):
                inside = name in (attributes.get("data-plot"), attributes.get("data-table"))
            if inside and "data-value" in attributes:
                numbers.append(int(attributes["data-value"]))
        return numbers

    def cards(self) -> Iterator[tuple[str, int]]:
        for _, attributes in self.elements:
            if "data-card" in attributes:
                yield attributes["data-card"], int(attributes["data-value"])


@cache
def opened(file: Path, *options: str) -> tuple[str, list[str], list[str]]:
    """The page's elements as Chromium has them, what it has on its console, and which addresses it asked for."""
    assert CHROMIUM is not None
    network = file.with_suffix(".net.json")
    command = [
        *("unshare", "--net", CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        "--hide-scrollbars",
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
        *(f"--user-data-dir={file.parent}/profile", f"--log-net-log={network}", "--dump-dom", *options, file.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # What the browser asks for on its own account has no page as its origin.
    events = [each["params"] for each in json.loads(network.read_text())["events"] if "params" in each]
    asked = [
        each["url"] for each in events if "url" in each and each.get("initiator", "not an origin") != "not an origin"
    ]
    return done.stdout, console, asked


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("replay")
    log = write(
        folder,
        *(guess(60 * n, BOT) for n in range(9)),
        *(guess(60 * n, f"203.0.113.{40 + n}") for n in range(3)),
        accepted(0, CUSTOMER, "AAAAAAAAAA"),
        *(guess(7200 + n, CUSTOMER) for n in range(6)),
        *(at(9000 + n, f"postfix/smtpd[{n}]: warning: non-SMTP command from unknown[198.51.100.9]: {HOSTILE}")
          for n in range(6)),
    )  # fmt: skip
    tighter = settings(folder, f"{SILENT}[defaults]\nmaxretry = 2\n{JAILS}", "tighter.toml")
    return replay([settings(folder), tighter], [log])


@pytest.fixture(scope="module")
def file(result: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("page") / "out.html"
    written.write_text(page(result), encoding="utf-8")
    return written


def test_what_is_not_markup_is_escaped() -> None:
    assert element("b", "<i>", element("u", "&"), title='"') == '<b title="&quot;">&lt;i&gt;<u>&amp;</u></b>'
    assert element("b", "\u202e\x1b") == "<b>\\u202e\\x1b</b>"


def test_the_page_holds_nothing_that_could_run_or_be_fetched(file: Path) -> None:
    """Of hostile log lines there is text, and no element or attribute."""
    dom = Dom(file.read_text())
    assert {tag for tag, _ in dom.elements} & {"script", "img", "iframe", "object", "form", "a", "base"} == set()
    attributes = {name for _, each in dom.elements for name in each}
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert "<script>document.title='owned'</script>" in dom.text
    assert "\u202e" not in dom.text


@browser
def test_a_browser_shows_it_without_complaint_and_asks_nobody(file: Path) -> None:
    dom, console, asked = opened(file)
    assert console == []
    assert asked == []
    assert "<title>nftban replay</title>" in dom


@browser
def test_what_a_page_asks_for_would_be_seen(tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text('<img src="http://192.0.2.9/x"><script>console.log("said")</script>')
    _, console, asked = opened(other)
    assert asked == ["http://192.0.2.9/x"]
    assert any("said" in line for line in console)


@browser
def test_its_plots_have_the_right_numbers(file: Path, result: dict[str, Any]) -> None:
    whole = Dom(opened(file)[0])
    first = result["settings"][0]
    assert [ban["prefix"] for ban in first["bans"]] == [BOT, CUSTOMER, "198.51.100.9"]
    length = len(first["timeline"]["offences"])
    assert whole.plot("offences")[:length] == first["timeline"]["offences"]
    assert sum(whole.plot("offences")[:length]) == 9 + 3 + 6 + 6
    assert sum(whole.plot("bans")[:length]) == sum(whole.plot("scores")[:12]) == sum(whole.plot("delays")[:9]) == 3
    assert whole.plot("sweep-bans")[:7] == [6, 3, 3, 3, 3, 3, 1]
    assert whole.plot("sweep-good")[:7] == [1, 1, 1, 1, 1, 1, 0]
    assert whole.plot("networks")[:2] == [12, 12]
    cards = list(whole.cards())
    assert cards[:2] == [("bans", 3), ("offences stopped", 3)]
    assert ("good clients hit", 1) in cards


def test_zones_that_agree_are_shown(result: dict[str, Any]) -> None:
    def evidence(*zones: str) -> Evidence:
        listings = tuple(Listing(zone, Answer.LISTED if zone in zones else Answer.CLEAR, points=4) for zone in "abc")
        return Evidence(Prefix.parse(BOT), listings)

    zones = zones_agreement([evidence("a", "b"), evidence("a"), evidence("a", "b"), evidence()])
    assert zones == {"addresses": 4, "names": ["a", "b"], "listed": [3, 2], "both": [[3, 2], [2, 2]]}
    dom = Dom(page({**result, "dns": {**result["dns"], "zones": zones}}))
    assert dom.plot("zones") == [3, 2, 2, 2]
    assert "Of 4 addresses DNS's answers are known." in dom.text


@browser
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_no_wider_than_the_window(file: Path, width: int) -> None:
    """Measured by a page of ours around it: its own may run no script."""
    frame = file.with_name(f"frame-{width}.html")
    frame.write_text(
        f'<iframe id="f" src="{file.name}" style="width:{width}px;height:900px;border:0"></iframe><script>'
        "document.getElementById('f').onload=()=>{const r=document.getElementById('f').contentDocument.documentElement;"
        "document.title='width '+r.scrollWidth+' of '+r.clientWidth}</script>"
    )
    dom, _, _ = opened(frame, "--allow-file-access-from-files", f"--window-size={width + 60},1000")
    assert f"<title>width {width} of {width}</title>" in dom


def test_a_report_about_nothing_is_a_page_too(tmp_path: Path) -> None:
    text = page(replay([settings(tmp_path)], [write(tmp_path, "no date, no offence\n")]))
    assert "No offence was found." in text
    assert json.dumps(text)
