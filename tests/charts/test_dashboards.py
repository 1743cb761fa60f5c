"""Dashboards ask for metrics that there are, in a language that Prometheus understands."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.charts.chart import CHART, ROOT, defaults

PROMETHEUS = ROOT / "build/prometheus/usr/bin/prometheus"
FILES = sorted((CHART / "dashboards").glob("*.json"))
BOUND = 40.0  # seconds
METRIC = re.compile(r"\b((?:deflector|hubble|cilium)_[a-z0-9_]+)")
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def panels() -> Iterator[Any]:
    for file in FILES:
        for panel in json.loads(file.read_text())["panels"]:
            yield pytest.param(panel, id=f"{file.stem}-{panel['title']}")


def queries(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def documented() -> set[str]:
    text = (ROOT / "docs/metrics.md").read_text()
    return {METRIC.search(line)[1] for line in text.splitlines() if line.startswith("| `") and METRIC.search(line)}  # type: ignore[index]


@pytest.mark.parametrize("panel", list(panels()))
def test_metrics_are_documented(panel: dict[str, Any]) -> None:
    for query in queries(panel):
        names = {name if name in documented() else SUFFIX.sub("", name) for name in METRIC.findall(query)}
        assert names
        assert names <= documented()


@pytest.mark.parametrize("panel", list(panels()))
def test_metrics_of_flows_are_on_by_default(panel: dict[str, Any]) -> None:
    """A dashboard that is empty where nobody has chosen metrics tells nothing."""
    rows = (ROOT / "docs/metrics.md").read_text().splitlines()
    configured = {
        line.split("`")[1]: line.split("`")[-2] for line in rows if line.startswith("| `hubble_") and "| `" in line[3:]
    }
    on = {metric.partition(":")[0] for metric in defaults()["metrics"]["flows"]}
    for query in queries(panel):
        for name in METRIC.findall(query):
            needed = configured.get(SUFFIX.sub("", name))
            assert needed is None or needed in on, f"{name} needs {needed}"


def test_every_panel_has_a_place_of_its_own() -> None:
    for file in FILES:
        board = json.loads(file.read_text())
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken
            taken |= cells
        assert max(x for x, _ in taken) < 24
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that scrapes nothing."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text("global: {}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    argv = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*argv, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        _ready(f"http://{address}", process, folder / "log")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + BOUND
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/-/ready", timeout=2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"Prometheus does not come up: {log.read_text()[-500:]}")


def test_prometheus_understands_every_query(prometheus: str) -> None:
    for value in panels():
        for query in queries(value.values[0]):
            asked = query.replace("$__rate_interval", "5m").replace("$node", ".*")
            address = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': asked})}"
            try:
                answer = json.load(urllib.request.urlopen(address, timeout=10))
            except urllib.error.HTTPError as error:
                raise AssertionError(f"{query}: {json.load(error)['error']}") from None
            assert answer["status"] == "success"
