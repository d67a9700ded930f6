"""The contributed alert rules in Prometheus's own test, the dashboard's questions and the metrics in a real server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from nftban.report.metrics import exposition
from tests.unit.report.test_metrics import COUNTED, STATUS

CONTRIB = Path(__file__).resolve().parents[3] / "contrib"

needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")


@needs_prometheus
def test_the_alert_rules_fire_when_they_should() -> None:
    for words in (["check", "rules", "nftban.rules.yml"], ["test", "rules", "nftban.rules.test.yml"]):
        done = subprocess.run(
            ["promtool", *words], capture_output=True, text=True, timeout=60, cwd=CONTRIB / "prometheus"
        )
        assert done.returncode == 0, done.stdout + done.stderr


class Metrics(BaseHTTPRequestHandler):
    """What `nftban metrics` prints, under its own content type: the server's strict parser reads it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(exposition(STATUS, COUNTED, openmetrics=True).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quietly."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has scraped the metrics; gives its address."""
    folder = tmp_path_factory.mktemp("prometheus")
    target = HTTPServer(("127.0.0.1", 0), Metrics)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    address = _free_address()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{CONTRIB}/prometheus/nftban.rules.yml]\n"
        f"scrape_configs: [{{job_name: nftban, static_configs: [{{targets: ['127.0.0.1:{target.server_port}']}}]}}]\n"
    )
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        pause, deadline = threading.Event(), time.monotonic() + 30
        while not _scraped(address):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            pause.wait(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(20)
        target.shutdown()
        target.server_close()


def _api(address: str, path: str, **args: str) -> Any:
    with urllib.request.urlopen(f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(args)}", timeout=20) as answer:
        return json.load(answer)["data"]


def _scraped(address: str) -> bool:
    try:
        targets = _api(address, "targets")["activeTargets"]
    except (urllib.error.URLError, ConnectionError):
        return False
    for target in targets:
        assert not target["lastError"], target["lastError"]
    # A rate is of two samples.
    return bool(_api(address, "query", query="count_over_time(nftban_build_info[1m]) >= 2")["result"])


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.skipif(shutil.which("prometheus-node-exporter") is None, reason="needs prometheus-node-exporter")
def test_node_exporter_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "nftban.prom").write_text(exposition(STATUS, COUNTED, openmetrics=False))
    address = _free_address()
    server = subprocess.Popen(
        [
            *("prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile"),
            *(f"--collector.textfile.directory={tmp_path}", f"--web.listen-address={address}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        pause, deadline = threading.Event(), time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
                    text = answer.read().decode()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None and time.monotonic() < deadline
                pause.wait(0.05)
    finally:
        server.terminate()
        server.wait(20)
    assert "node_textfile_scrape_error 0" in text
    assert 'nftban_jail_bans_total{jail="postfix"} 2' in text and "# TYPE nftban_jail_bans_total counter" in text
    assert "node_textfile_mtime_seconds{file=" in text and "nftban.prom" in text, "the alert NftbanGone rests on it"


@needs_prometheus
def test_prometheus_takes_the_metrics_and_knows_their_types(prometheus: str) -> None:
    (sample,) = _api(prometheus, "query", query="nftban_jail_bans_total")["result"]
    assert (sample["metric"]["jail"], sample["value"][1]) == ("postfix", "2")
    types = {name: rows[0]["type"] for name, rows in _api(prometheus, "metadata").items() if name.startswith("nftban")}
    assert types["nftban_lines"] == "counter"
    assert types["nftban_zone_usable"] == "gauge"
    (source,) = _api(prometheus, "query", query="nftban_source_error")["result"]
    assert source["metric"]["source"] == 'back\\slash "quoted"\nline \\udcff'


@needs_prometheus
def test_the_rules_are_loaded_and_every_panel_asks_what_can_be_asked(prometheus: str) -> None:
    (group,) = _api(prometheus, "rules")["groups"]
    assert [rule["name"] for rule in group["rules"] if rule["health"] == "err"] == []
    dashboard = json.loads((CONTRIB / "grafana" / "nftban.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$instance", ".*")
            assert "$" not in query
            found = _api(prometheus, "query", query=query)["result"]
            # What the recorded metrics lack: a list that was confirmed, a last line.
            if "confirmed" not in query and "last_line" not in query:
                assert found, (panel["title"], query)
