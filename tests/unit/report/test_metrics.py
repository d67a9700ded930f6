"""Metrics as Prometheus itself reads them: its checker, and a server that scrapes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nftban.report.metrics import STATES, Counted, exposition, names
from nftban.verify.health import State

HOSTILE = 'back\\slash "quoted"\nline \udcff'
STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "started": 1_800_000_000.5,
    "observe": False,
    "bans": 2,
    "counters": {"lines": 12, "offences": 3, "verifications skipped": 1},
    "jails": [{"name": "postfix", "suspects": 4, "bans": 2}],
    "kernel": {"intact": True, "elements": {"ban4_all": 2}},
    "healing": {"drift_found": 3, "drift_healed": 2, "by_kind": {"table": 1}, "resting": False},
    "zones": [
        {
            "zone": "zen.spamhaus.org",
            "state": "ok",
            "usable": True,
            "queries_today": 5,
            "budget": 80_000,
            "tested": 1_800_000_000.0,
        },
        {"zone": "bl.example", "state": "dead", "usable": False, "queries_today": 0, "budget": 1, "tested": None},
    ],
    "sources": [
        {
            "path": HOSTILE,
            "lines": 12,
            "bytes": 1000,
            "oversized": 0,
            "undecodable": 1,
            "last_line": None,
            "alert": None,
            "error": "no such file",
        }
    ],
    "feeds": [
        {"name": "drop", "entries": 9, "confirmed": None, "good_until": 1.8e9, "failures": 0, "refused": "shrunk"}
    ],
    "jobs": [{"id": "reconcile", "runs": 5, "errors": 1, "missed": 0}],
}
COUNTED = Counted(
    {"postfix": (3, 2)},
    {"queries": 5, "failures": 1, "strays": 0},
    {"ban": 2, "zone": 1},
    {"sent": 1, "failed": 0, "dropped": 0},
    0.00025,
)


def test_the_older_format_is_what_promtool_takes() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("needs prometheus")
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(STATUS, COUNTED, openmetrics=False),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_both_formats_tell_the_same_and_a_name_that_is_no_address() -> None:
    new, old = (exposition(STATUS, COUNTED, openmetrics=choice) for choice in (True, False))
    samples = [line for line in new.splitlines() if not line.startswith("#")]
    assert samples == [line for line in old.splitlines() if not line.startswith("#")]
    assert new.endswith("\n# EOF\n") and "# EOF" not in old
    assert "# TYPE nftban_lines counter\n" in new and "# TYPE nftban_lines_total counter\n" in old
    assert "# TYPE nftban_build info\n" in new and "# TYPE nftban_build_info gauge\n" in old
    for told in (
        "nftban_lines_total 12",
        "nftban_verifications_skipped_total 1",
        "nftban_bans_total 0",
        "nftban_start_time_seconds 1800000000.5",
        'nftban_jail_bans_total{jail="postfix"} 2',
        'nftban_zone_state{zone="bl.example",state="dead"} 1',
        'nftban_zone_state{zone="bl.example",state="ok"} 0',
        'nftban_source_error{source="back\\\\slash \\"quoted\\"\\nline \\\\udcff"} 1',
        'nftban_feed_refused{feed="drop"} 1',
        'nftban_drift_kinds_total{kind="table"} 1',
        'nftban_notifications_total{result="sent"} 1',
    ):
        assert told in samples, told
    assert not [line for line in samples if line.startswith(("nftban_source_last_line", "nftban_feed_confirmed"))]
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", new), "no address is a label"
    assert {re.split(r"[{ ]", line)[0] for line in samples} <= names(STATUS, COUNTED)


def test_every_state_of_a_zone_has_its_sample() -> None:
    assert set(STATES) == {str(state) for state in State}


def test_without_anything_yet_it_is_whole() -> None:
    empty = {
        **STATUS,
        "counters": {},
        "jails": [],
        "zones": [],
        "sources": [],
        "jobs": [],
        "feeds": [],
        "kernel": {"intact": False, "elements": {}},
    }
    text = exposition(empty, Counted(), openmetrics=False)
    assert "nftban_kernel_intact 0\n" in text and "nftban_notifications" not in text
    helped = re.findall(r"^# HELP (\S+)", text, re.MULTILINE)
    assert len(helped) == len(set(helped))
    assert all(re.search(rf"^{name}[{{ ]", text, re.MULTILINE) for name in helped), "no heading without a sample"


def test_the_contributed_rules_and_dashboard_name_only_what_there_is() -> None:
    contrib = Path(__file__).resolve().parents[3] / "contrib"
    known = names(STATUS, COUNTED)
    for file in ("prometheus/nftban.rules.yml", "prometheus/nftban.rules.test.yml", "grafana/nftban.json"):
        named = set(re.findall(r"\bnftban_[a-z_]+", (contrib / file).read_text()))
        assert named, file
        assert named <= known, (file, named - known)
    documented = (contrib.parent / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"`(nftban_[a-z_]+)", documented)) == known
