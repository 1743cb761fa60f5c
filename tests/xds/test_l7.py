"""Slots of our own proxies: what they are told as, and that reading it back gives the very slot."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from policies.ir import DnsRule, FqdnSelector, KafkaRule, L7Parser, RuleSet, Slot, SlotState
from policies.types import Direction, Origin, PortRange, Protocol
from tests.xds.make import ORIGIN, node, rule, slot
from xds.l7 import (
    DNS_PROXY,
    KAFKA_PROXY,
    PARSERS,
    DnsNode,
    dns_options,
    kafka_options,
    l7_listener,
    read_dns_options,
    read_kafka_options,
    read_listener,
)
from xds.options import DnsSettings, KafkaSettings, Options
from xds.protos.deflector.l7.v1 import filters_pb2
from xds.resources import DNS_OPTIONS, KAFKA_OPTIONS, LISTENER, resource
from xds.translator import translate

TESTDATA = Path(__file__).parent / "testdata"

NAMES = (DnsRule("www.example.org.", "", (ORIGIN,)), DnsRule("", "*.example.net.", (ORIGIN,)))
DNS = Slot("egress:256:udp:53", Direction.EGRESS, 256, Protocol.UDP, PortRange(53, 53), RuleSet(dns=NAMES))
DNS = replace(DNS, parser=L7Parser.DNS)
TOPICS = (KafkaRule((0, 3), 7, "hq", "empire-announce", (ORIGIN,)), KafkaRule())
KAFKA = Slot("ingress:256:tcp:9092", Direction.INGRESS, 256, Protocol.TCP, PortRange(9092, 9092), RuleSet(kafka=TOPICS))
KAFKA = replace(KAFKA, parser=L7Parser.KAFKA)
OVER_TCP = replace(DNS, name="egress:256:tcp:53", protocol=Protocol.TCP)

CASES: dict[str, tuple[str, Slot]] = {
    "dns": (DNS_PROXY, DNS),
    "dns-tcp-retired": (DNS_PROXY, replace(OVER_TCP, state=SlotState.RETIRED, rule_set=RuleSet())),
    "dns-drained": (DNS_PROXY, replace(DNS, state=SlotState.DRAINED, rule_set=RuleSet(wildcard=(ORIGIN,)))),
    "kafka": (KAFKA_PROXY, KAFKA),
}

texts = st.text(st.characters(codec="utf-8"), max_size=8)
origins = st.lists(st.builds(Origin, texts, texts, texts, texts), max_size=2).map(tuple)
dns_rules = st.builds(DnsRule, texts, texts, origins)
kafka_rules = st.builds(
    KafkaRule,
    st.lists(st.integers(0, 32767), max_size=3).map(tuple),
    st.none() | st.integers(0, 32767),
    texts,
    texts,
    origins,
)


@st.composite
def slots(draw: st.DrawFn) -> Slot:
    parser = draw(st.sampled_from([L7Parser.DNS, L7Parser.KAFKA]))
    rules: dict[str, Any] = {"wildcard": draw(origins)}
    rules[parser.value] = draw(st.lists(dns_rules if parser is L7Parser.DNS else kafka_rules, max_size=3).map(tuple))
    first = draw(st.integers(0, 65535))
    return Slot(
        draw(texts),
        draw(st.sampled_from(Direction)),
        draw(st.integers(0, 2**32 - 1)),
        draw(st.sampled_from([Protocol.TCP, Protocol.UDP])),
        PortRange(first, draw(st.integers(first, 65535))),
        RuleSet(**rules),
        draw(st.sampled_from(SlotState)),
        parser,
    )


@given(slots(), st.integers(1, 65535), st.booleans())
def test_what_is_told_is_the_slot(slot: Slot, port: int, ipv6: bool) -> None:
    told = read_listener(l7_listener(slot, port, ipv6=ipv6).body)
    assert (told.slot, told.port) == (slot, port)


@given(st.binary(max_size=200))
def test_whatever_is_read_is_a_slot_or_an_error(body: bytes) -> None:
    with suppress(ValueError):
        read_listener(body)


def test_a_listener_of_envoys_is_none_of_ours() -> None:
    (listener,) = (
        r for r in translate(node(slot()), {"ingress:256:80": 10_000}).resources if r.key.type_url == LISTENER
    )
    with pytest.raises(ValueError, match="is no listener of a slot of ours"):
        read_listener(listener.body)
    with pytest.raises(ValueError, match="0 is not a port"):
        read_listener(l7_listener(DNS, 0, ipv6=False).body)
    with pytest.raises(ValueError, match="SCTP is not a protocol that our proxies speak"):
        l7_listener(replace(DNS, protocol=Protocol.SCTP), 10_000, ipv6=False)


@given(st.lists(st.builds(FqdnSelector, texts, texts), max_size=3).map(tuple), st.integers(1, 60_000), st.booleans())
def test_what_holds_for_the_node_is_told(selectors: tuple[FqdnSelector, ...], hold_ms: int, late: bool) -> None:
    told = DnsNode(DnsSettings("nameError", 10.0, hold_ms / 1000, late, True, True), selectors)
    assert read_dns_options(dns_options(told).body) == told


def test_each_proxy_is_told_its_own() -> None:
    """And nothing of what it cannot read."""
    policy = node(slot("ingress:256:80", rule("GET", "/")), DNS, KAFKA)
    ports = {one.name: 10_000 + place for place, one in enumerate(policy.slots)}
    names = {
        parser: {
            one.key.name for one in translate(policy, ports, parser=parser).resources if one.key.type_url == LISTENER
        }
        for parser in L7Parser
    }
    assert names == {
        L7Parser.HTTP: {"ingress:256:80"},
        L7Parser.DNS: {DNS.name},
        L7Parser.KAFKA: {KAFKA.name},
        L7Parser.TLS: set(),  # told to Envoy, with those of HTTP
    }
    assert [one.key.type_url for one in translate(node(), {}, parser=L7Parser.DNS).resources] == [DNS_OPTIONS]
    assert [one.key.type_url for one in translate(node(), {}, parser=L7Parser.KAFKA).resources] == [KAFKA_OPTIONS]


@pytest.mark.parametrize("settings", [KafkaSettings(), KafkaSettings(hide_topics=False)])
def test_whether_topics_are_hidden_is_told(settings: KafkaSettings) -> None:
    assert read_kafka_options(kafka_options(settings).body) == settings
    (told,) = translate(node(), {}, Options(kafka=settings), L7Parser.KAFKA).resources
    assert read_kafka_options(told.body) == settings
    with pytest.raises(ValueError, match="are no options of Kafka"):
        read_kafka_options(b"\xff")


def test_a_slot_without_a_port_is_told_to_nobody() -> None:
    table = translate(node(DNS), {}, parser=L7Parser.DNS)
    assert [one.key.type_url for one in table.resources] == [DNS_OPTIONS]


@pytest.mark.parametrize("case", CASES)
def test_what_is_served(case: str, golden: Callable[[Path, str], None]) -> None:
    consumer, one = CASES[case]
    policy = replace(node(one), fqdn_selectors=(FqdnSelector("", "*.example.net."), FqdnSelector("www.example.org.")))
    table = translate(policy, {one.name: 10_000}, parser=PARSERS[consumer])
    assert not table.errors
    kinds: dict[str, Any] = {
        LISTENER: Listener,
        DNS_OPTIONS: filters_pb2.DnsOptions,
        KAFKA_OPTIONS: filters_pb2.KafkaOptions,
    }
    content = [
        json.loads(
            json_format.MessageToJson(kinds[r.key.type_url].FromString(r.body), preserving_proto_field_name=True)
        )
        for r in table.resources
    ]
    golden(TESTDATA / f"{case}.l7.yaml", yaml.safe_dump(content, sort_keys=True, width=110))


def test_the_type_url_is_the_messages() -> None:
    for told, kind in ((DNS_OPTIONS, filters_pb2.DnsOptions), (KAFKA_OPTIONS, filters_pb2.KafkaOptions)):
        assert resource(told, kind(name="all")).key.type_url.endswith("/" + kind.DESCRIPTOR.full_name)
