"""The scorecard: which benchmark yields which figure, the document, and the table."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import scorecard
from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import BY_NAME, FIGURES, UnknownFigure, benchmarks_for

TARGETS = {
    "dns_qps": 15_000,
    "dns_added_p50_us": 150,
    "dns_added_p99_us": 1500,
    "kafka_throughput_ratio": 0.6,
    "kafka_added_p50_us": 300,
    "proxy_throughput_ratio": 0.85,
    "rules_cost_ratio": 1.3,
    "policy_to_enforced_p99_ms": 250,
    "flows_per_second": 50_000,
    "flow_flood_lost_denials": 0,
    "flow_flood_rss_growth_mb": 10,
    "flow_flood_flows_per_second": 49_000,
    "observe_last20_ms": 100,
    "compile_cold_s": 3,
    "policy_edit_ms": 50,
    "identity_add_ms": 10,
    "compile_rss_mb": 250,
    "agent_rss_mb": 150,
    "cluster_start_s": 10,
    "cluster_rss_mb": 300,
    "cluster_peak_rss_mb": 300,
    "cluster_pod_cpu_ms": 20,
    "request_to_flow_p99_ms": 250,
    "open_request_to_flow_p99_ms": 250,
}


def shown(readings: dict[str, float]) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(scorecard.table(readings))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_targets_are_those_of_the_issue() -> None:
    assert {figure.name: figure.target for figure in FIGURES if figure.target is not None} == TARGETS


def test_names_are_unique_and_each_figure_has_its_benchmark() -> None:
    assert len(BY_NAME) == len(FIGURES)
    assert {figure.benchmark for figure in FIGURES} == set(BENCHMARKS)


def test_only_runs_the_benchmark_that_yields_the_figure() -> None:
    assert benchmarks_for("cpu_us_per_request_regex_10000") == ["rules"]
    assert benchmarks_for("rules") == ["rules"]
    assert set(benchmarks_for(None)) == set(BENCHMARKS)


def test_an_unknown_figure_is_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownFigure, match=r"no figure is called 'speed'.* throughput, rules, "):
        benchmarks_for("speed")


def test_reaching_the_target_is_enough() -> None:
    assert BY_NAME["proxy_throughput_ratio"].is_met(0.85)
    assert not BY_NAME["proxy_throughput_ratio"].is_met(0.849)
    assert BY_NAME["rules_cost_ratio"].is_met(1.3)
    assert not BY_NAME["rules_cost_ratio"].is_met(1.31)
    assert BY_NAME["bare_rps"].is_met(1) is None


def test_an_entry_says_value_unit_target_and_which_way_is_better() -> None:
    assert scorecard.document({"flows_per_second": 62_941.234, "bare_rps": 20_000.0}) == {
        "bare_rps": {"value": 20_000.0, "unit": "requests/s", "target": None, "better": "higher"},
        "flows_per_second": {"value": 62_941.0, "unit": "entries/s CPU", "target": 50_000, "better": "higher"},
    }


def test_a_reading_without_a_figure_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="no such figure: speed"):
        scorecard.document({"speed": 1.0})


def test_one_benchmark_replaces_its_own_figures_and_no_others() -> None:
    before = scorecard.document({"flows_per_second": 1.0, "built_flows_per_second": 2.0, "agent_rss_mb": 90.0})
    now = scorecard.document({"flows_per_second": 60_000.0})
    after = scorecard.merged({**before, "figure_of_old": {"value": 1}}, now)
    assert {name: entry["value"] for name, entry in after.items()} == {
        "flows_per_second": 60_000.0,
        "agent_rss_mb": 90.0,
    }


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_missing_or_broken_file_is_measured_anew(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "build" / "bench.json"
    if content is not None:
        path.parent.mkdir()
        path.write_text(content)
    assert scorecard.read(path) == {}
    scorecard.write(path, scorecard.document({"agent_rss_mb": 90.0}))
    assert json.loads(path.read_text())["agent_rss_mb"]["value"] == 90.0
    assert [found.name for found in path.parent.iterdir()] == ["bench.json"]


def test_the_table_shows_targets_and_whether_they_are_met() -> None:
    text = shown({"proxy_throughput_ratio": 0.9123, "rules_cost_ratio": 1.5, "bare_rps": 21_234.5})
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["proxy_throughput_ratio"] == ["0.9123", "x", "≥", "0.85", "met"]
    assert lines["rules_cost_ratio"] == ["1.5", "x", "≤", "1.3", "missed"]
    assert lines["bare_rps"] == ["21,234", "requests/s"]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.000123456, "0.0001235"), (12.34567, "12.35"), (1e6, "1,000,000")]
)
def test_numbers_are_shown_with_four_digits(value: float, text: str) -> None:
    assert scorecard.plain(scorecard.rounded(value)) == text
