"""Which metrics are configured, in Hubble's words, and what is refused."""

from __future__ import annotations

import pytest

from flows.metrics.config import MetricsConfigError, parse_file, parse_line


def test_a_line_names_metrics_with_their_options() -> None:
    line = (
        "dns:query;ignoreAAAA drop httpV2:exemplars=true;labelsContext=source_ip,source_namespace;sourceContext=pod|ip"
    )
    dns, drop, http = parse_line(line).metrics
    assert (dns.name, dns.options, dns.contexts) == ("dns", {"query", "ignoreAAAA"}, ())
    assert (drop.name, drop.options) == ("drop", frozenset())
    assert http.options == {"exemplars"}
    assert dict(http.contexts) == {"labelsContext": ("source_ip", "source_namespace"), "sourceContext": ("pod", "ip")}


def test_an_option_that_is_switched_off_is_off() -> None:
    assert parse_line("http:exemplars=false").metrics[0].options == frozenset()


def test_an_unknown_metric_is_passed_over_with_a_warning() -> None:
    config = parse_line("drop nonsense")
    assert [spec.name for spec in config.metrics] == ["drop"]
    assert 'metric "nonsense" is unknown' in config.warnings[0]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("drop:query", 'drop: unknown option "query"'),
        ("http:exemplars=maybe", 'exemplars is either on or off, not "maybe"'),
        ("drop drop", "drop is configured twice"),
        ("http httpV2", "http and httpV2 share their names"),
    ],
)
def test_what_cannot_be_meant_is_refused(line: str, complaint: str) -> None:
    with pytest.raises(MetricsConfigError, match=complaint):
        parse_line(line)


def test_the_file_says_the_same_and_adds_filters() -> None:
    document = {
        "metrics": [
            {
                "name": "flow",
                "contextOptions": [
                    {"name": "sourceContext", "values": ["pod", "reserved-identity"]},
                    {"name": "labelsContext", "values": ["source_ip,destination_ip"]},
                ],
                "includeFilters": [{"source_pod": ["default/"]}],
            }
        ]
    }
    (flow,) = parse_file(document).metrics
    assert dict(flow.contexts)["labelsContext"] == ("source_ip", "destination_ip")
    assert dict(flow.contexts)["sourceContext"] == ("pod", "reserved-identity")
    assert len(flow.include) == 1
    assert not flow.exclude
    assert parse_file(None).metrics == ()


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "must be a mapping"),
        ({"metrics": [{}]}, r"metrics\[0\]: must be a mapping with a name"),
        ({"metrics": [{"name": "drop", "filters": []}]}, r"metrics\[0\]: unknown field filters"),
        ({"metrics": [{"name": "drop", "includeFilters": [{"no": 1}]}]}, r"includeFilters\[0\]"),
        ({"metrics": [{"name": "drop", "contextOptions": [{"name": 1}]}]}, r"contextOptions\[0\]"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(document: object, complaint: str) -> None:
    with pytest.raises(MetricsConfigError, match=complaint):
        parse_file(document)
