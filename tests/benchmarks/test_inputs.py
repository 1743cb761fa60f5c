"""What benchmarks feed and read: wrk's report, policies of many rules, access-log messages, the twin galaxy."""

from __future__ import annotations

import random
import re

import pytest
import yaml
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage

from benchmarks.errors import NotMeasured
from benchmarks.figures import RULE_FORMS
from benchmarks.load import LoadReport, parse_report
from benchmarks.policy import last_path, many_rules, plain_policy
from benchmarks.stage import PROMPT_PORTS, SERVER_PORTS, twin_blueprint
from benchmarks.traffic import BATCH, messages

REPORT = '{"requests":%d,"duration_us":2000000,"p50_us":750,"p99_us":4100,"refused":%d,"broken":%d}'


def test_the_last_line_of_wrk_is_the_report() -> None:
    report = parse_report("Running 2s test\n  1 threads\n\n" + REPORT % (40_000, 0, 0) + "\n")
    assert report == LoadReport(40_000, 2.0, 0.75, 4.1)
    assert report.rps == 20_000


@pytest.mark.parametrize("output", ["", "unable to connect to 10.0.0.1:80\n", REPORT % (0, 0, 0)])
def test_a_load_without_a_request_is_no_measurement(output: str) -> None:
    with pytest.raises(NotMeasured):
        parse_report(output)


def test_a_load_with_failures_is_no_measurement() -> None:
    with pytest.raises(NotMeasured, match="3 requests were refused and 2 broke"):
        parse_report(REPORT % (40_000, 3, 2))


@pytest.mark.parametrize("form", RULE_FORMS)
def test_only_the_last_of_many_rules_matches_and_it_sorts_last(form: str) -> None:
    [policy] = yaml.safe_load_all(many_rules(form, 1000, 9001))
    [port] = policy["spec"]["ingress"][0]["toPorts"]
    assert port["ports"] == [{"port": "9001", "protocol": "TCP"}]
    paths = [rule["path"] for rule in port["rules"]["http"]]
    assert len(set(paths)) == 1000
    assert paths == sorted(paths)
    assert [path for path in paths if re.fullmatch(path, last_path(form, 1000))] == [paths[-1]]


def test_a_plain_policy_has_no_rules() -> None:
    policy = yaml.safe_load(plain_policy("plain", 8080))
    assert policy["metadata"]["name"] == "plain"
    assert "rules" not in policy["spec"]["ingress"][0]["toPorts"][0]


def test_traffic_is_reproducible_and_comes_in_full_batches() -> None:
    first, again = (messages(random.Random(7), 3) for _ in range(2))
    assert first == again
    assert [len(StreamAccessLogsMessage.FromString(wire).http_logs.log_entry) for wire in first] == [BATCH] * 3


def test_the_bench_starts_the_servers_itself_on_ports_that_do_not_collide() -> None:
    blueprint = twin_blueprint()
    assert [pod.serves for pod in blueprint.pods] == [(), ()]
    assert blueprint.service("deathstar").backends == blueprint.pods[:1]
    assert len(SERVER_PORTS) == len(PROMPT_PORTS) + 1
