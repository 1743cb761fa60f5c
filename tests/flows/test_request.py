"""Options of the command line and the request that they make."""

from __future__ import annotations

from typing import Any

import pytest
from flow import flow_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from flows.gotime import TimeError, parse_time
from flows.request import FLAGS, NUMBER_ALL, SETTERS, SHORT, FilterOption, OptionError, Options, build_request

NOW = 1_768_385_472_345_678_901


def filters(*typed: str) -> dict[str, list[Any]]:
    """The lists of filters for options typed as "--not verdict DROPPED"."""
    options = []
    for text in typed:
        negated = text.startswith("--not ")
        name, _, value = text.removeprefix("--not ").partition(" ")
        options.append(FilterOption(name, value, negated))
    request = build_request(Options(filters=options), NOW)
    return {
        name: [json_format.MessageToDict(one, preserving_proto_field_name=True) for one in getattr(request, name)]
        for name in ("whitelist", "blacklist")
        if getattr(request, name)
    }


def test_an_option_about_both_ends_makes_two_filters() -> None:
    assert filters("pod tie", "verdict DROPPED") == {
        "whitelist": [
            {"source_pod": ["tie"], "verdict": ["DROPPED"]},
            {"destination_pod": ["tie"], "verdict": ["DROPPED"]},
        ]
    }


def test_an_option_about_one_end_makes_one() -> None:
    assert filters("from-pod tie", "to-port 80") == {"whitelist": [{"source_pod": ["tie"], "destination_port": ["80"]}]}


def test_namespaces() -> None:
    assert filters("namespace default") == {
        "whitelist": [{"source_pod": ["default/"]}, {"destination_pod": ["default/"]}]
    }
    assert filters("all-namespaces")["whitelist"][0] == {"source_pod": ["/"]}
    assert filters("to-namespace a", "to-namespace b", "to-pod p") == {
        "whitelist": [{"destination_pod": ["a/p", "b/p"]}]
    }


def test_the_next_option_is_turned_around() -> None:
    assert filters("--not verdict FORWARDED", "protocol http") == {
        "whitelist": [{"protocol": ["http"]}],
        "blacklist": [{"verdict": ["FORWARDED"]}],
    }


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("type l7", {"event_type": [{"type": 129}]}),
        ("type trace:to-endpoint", {"event_type": [{"type": 4, "match_sub_type": True}]}),
        ("type trace:to-proxy", {"event_type": [{"type": 4, "match_sub_type": True, "sub_type": 1}]}),
        ("type 1:133", {"event_type": [{"type": 1, "match_sub_type": True, "sub_type": 133}]}),
        ("http-status 5+", {"http_status_code": ["5+"]}),
        ("http-header X-A:b:c", {"http_header": [{"key": "X-A", "value": "b:c"}]}),
        ("tcp-flags syn,ACK", {"tcp_flags": [{"SYN": True, "ACK": True}]}),
        ("ipv6 ", {"ip_version": ["IPv6"]}),
        ("from-identity kube-apiserver", {"source_identity": [7]}),
        ("to-workload Deployment/x", {"destination_workload": [{"name": "x", "kind": "Deployment"}]}),
        ("traffic-direction INGRESS", {"traffic_direction": ["INGRESS"]}),
        ("unencrypted ", {"encrypted": [False]}),
        ("node-name n*", {"node_name": ["n*"]}),
    ],
)
def test_values(typed: str, made: dict[str, Any]) -> None:
    assert filters(typed) == {"whitelist": [made]}


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (["verdict MAYBE"], "invalid --verdict value: MAYBE"),
        (["type nonsense"], "unable to parse type 'nonsense'"),
        (["type trace:nonsense"], "unable to parse event sub-type 'nonsense'"),
        (["identity nobody"], "invalid security identity 'nobody'"),
        (["http-header x"], "expected name:value"),
        (["tcp-flags xmas"], "unknown tcp flag: xmas"),
        (["ip-trace-id 0"], "greater than 0"),
        (["traffic-direction up"], "expected ingress or egress"),
        (["pod a", "from-pod b"], "filters --from-pod and --pod cannot be combined"),
        (["port 1", "to-port 2"], "filters --port and --to-port cannot be combined"),
        (["namespace a", "pod b/c"], 'namespace conflict: "a" does not contain "b/c"'),
        (["to-pod a/b", "to-service c/d"], 'namespace of service "c/d" conflict'),
        (["nonsense x"], "there is no filter --nonsense"),
    ],
)
def test_what_makes_no_request(typed: list[str], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        filters(*typed)


@pytest.mark.parametrize(
    ("options", "made"),
    [
        (Options(), {"number": 20}),
        (Options(follow=True), {"follow": True}),
        (Options(follow=True, last=5), {"follow": True, "number": 5}),
        (Options(last=5), {"number": 5}),
        (Options(all=True), {"number": NUMBER_ALL}),
        (Options(first=3), {"first": True, "number": 3}),
        (Options(since="1s"), {"since": NOW - 10**9}),
        (Options(since="1s", last=7), {"since": NOW - 10**9, "number": 7}),
        (Options(until="2m"), {"until": NOW - 120 * 10**9}),
        (Options(until="2m", follow=True), {"follow": True}),
    ],
)
def test_which_part_of_the_past(options: Options, made: dict[str, Any]) -> None:
    request = build_request(options, NOW)
    found = {field.name: value for field, value in request.ListFields()}
    assert {name: v.ToNanoseconds() if name in ("since", "until") else v for name, v in found.items()} == made


@pytest.mark.parametrize(
    "options",
    [Options(first=1, last=1), Options(first=1, all=True), Options(first=1, follow=True), Options(last=1, all=True)],
)
def test_selections_that_contradict_each_other(options: Options) -> None:
    with pytest.raises(OptionError, match="cannot set both"):
        build_request(options, NOW)


def test_a_field_mask_is_passed_on() -> None:
    assert list(build_request(Options(field_mask=["verdict", "IP"]), NOW).field_mask.paths) == ["verdict", "IP"]


def test_flags_and_short_forms_are_options() -> None:
    assert set(SETTERS) >= FLAGS
    assert set(SETTERS) >= set(SHORT)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", NOW),
        ("1h30m", NOW - 5400 * 10**9),
        ("1.5s", NOW - 1_500_000_000),
        ("-3s", NOW + 3 * 10**9),
        ("250ms", NOW - 250_000_000),
        ("2026-01-14", 1_768_348_800 * 10**9),
        ("2026-01-14T10Z", 1_768_384_800 * 10**9),
        ("2026-01-14T10:11+01:00", 1_768_381_860 * 10**9),
        ("2026-01-14T10:11:12Z", 1_768_385_472 * 10**9),
        ("2026-01-14T10:11:12.345678901Z", NOW),
        ("Wed, 14 Jan 2026 10:11:12 +0000", 1_768_385_472 * 10**9),
    ],
)
def test_times(text: str, ns: int) -> None:
    assert parse_time(text, NOW).ToNanoseconds() == ns


@pytest.mark.parametrize("text", ["", "soon", "5", "2026-13-01", "2026-01-14T10:11:12", "1h 2m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(TimeError, match="failed to convert"):
        parse_time(text, NOW)


@given(st.one_of(st.text(max_size=12), st.from_regex(r"[0-9.hmsu-]{1,9}", fullmatch=True)))
def test_nothing_but_the_time_error_escapes(text: str) -> None:
    try:
        parse_time(text, NOW)
    except TimeError:
        pass


@given(st.lists(st.tuples(st.sampled_from(sorted(SETTERS)), st.text(max_size=6), st.booleans()), max_size=4))
def test_nothing_but_the_option_error_escapes(typed: list[tuple[str, str, bool]]) -> None:
    try:
        request = build_request(Options(filters=[FilterOption(*one) for one in typed]), NOW)
    except OptionError:
        return
    assert len(request.whitelist) <= 2
    assert all(isinstance(one, flow_pb2.FlowFilter) for one in request.blacklist)
