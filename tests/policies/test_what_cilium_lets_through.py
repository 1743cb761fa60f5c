"""Facts 1.4, row by row: what Cilium accepts though one might expect otherwise. Refused here where it cannot mean what
it says, warned of where it can."""

from __future__ import annotations

from typing import Any

import pytest

from policies.errors import Reason
from policies.rules import ToPorts
from policies.types import PortRange, Protocol
from tests.policies.judge import clause, cnp, judge, ports

TCP80 = '{port: "80", protocol: TCP}'
IN = "spec.ingress[0]"
OUT = "spec.egress[0]"
AT_PORT = f"{IN}.toPorts[0].ports[0]"
AT_HTTP = f"{IN}.toPorts[0].rules.http[0]"
PORT53 = '{port: "53"}'


def http(rule: str) -> dict[str, Any]:
    return ports(f"ports: [{TCP80}], rules: {{http: [{{{rule}}}]}}")


def port(body: str) -> dict[str, Any]:
    return ports(f"ports: [{{{body}}}]")


def only_entry(raw: dict[str, Any]) -> ToPorts:
    """The one entry of toPorts of a good policy."""
    policy = judge(raw).policy
    assert policy is not None
    (entry,) = policy.rules[0].ingress[0].to_ports
    return entry


TRAPS: dict[str, tuple[dict[str, Any], str, Reason]] = {
    "5 HTTP rules without ports": (ports("rules: {http: [{}]}"), f"{IN}.toPorts[0].ports", Reason.MISSING),
    "6 a host that is no regex": (http("host: '*.example.org'"), f"{AT_HTTP}.host", Reason.BAD_REGEX),
    "a path from a block of YAML": (http('path: "/public\\n"'), f"{AT_HTTP}.path", Reason.BAD_REGEX),
    "a method with a tab": (http('method: "GET\\t"'), f"{AT_HTTP}.method", Reason.BAD_REGEX),
    "7 a header that keeps its colon": (http("headers: ['X-Key:']"), f"{AT_HTTP}.headers[0]", Reason.BAD_HEADER),
    "7 a header that keeps one of two colons": (
        http("headers: ['X-Key:: v']"),
        f"{AT_HTTP}.headers[0]",
        Reason.BAD_HEADER,
    ),
    "7 a header without the blank": (http("headers: ['X-Key:true']"), f"{AT_HTTP}.headers[0]", Reason.BAD_HEADER),
    "7 a pseudo header": (http("headers: [':path /x']"), f"{AT_HTTP}.headers[0]", Reason.BAD_HEADER),
    "7 a header match that no request has": (
        http("headerMatches: [{name: 'a b'}]"),
        f"{AT_HTTP}.headerMatches[0].name",
        Reason.BAD_HEADER,
    ),
    "4.3 an action on what frames a message": (
        http("headerMatches: [{name: Host, value: h, mismatch: REPLACE}]"),
        f"{AT_HTTP}.headerMatches[0].mismatch",
        Reason.BAD_HEADER,
    ),
    "8 endPort before port": (port('port: "90", endPort: 80'), f"{AT_PORT}.endPort", Reason.BAD_PORT),
    "9 endPort behind a name": (port("port: http, endPort: 90"), f"{AT_PORT}.endPort", Reason.BAD_PORT),
    "10 octal": (port('port: "010"'), f"{AT_PORT}.port", Reason.BAD_PORT),
    "10 underscores": (port('port: "8_0"'), f"{AT_PORT}.port", Reason.BAD_PORT),
    "11 an exception that reaches beyond": (
        clause("fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/4]}]"),
        f"{IN}.fromCIDRSet[0].except[0]",
        Reason.BAD_CIDR,
    ),
    "16 toFQDNs in a deny list": (
        clause("toFQDNs: [{matchName: a}]", "egressDeny"),
        "spec.egressDeny[0].toFQDNs",
        Reason.DROPPED_FIELD,
    ),
    "rules in a deny list": (
        ports(f"ports: [{TCP80}], rules: {{http: [{{}}]}}", "ingressDeny"),
        "spec.ingressDeny[0].toPorts[0].rules",
        Reason.DROPPED_FIELD,
    ),
    "authentication in a deny list": (
        clause("authentication: {mode: required}", "ingressDeny"),
        "spec.ingressDeny[0].authentication",
        Reason.DROPPED_FIELD,
    ),
    "a field that is none": (clause("fromEndpoint: [{}]"), f"{IN}.fromEndpoint", Reason.UNKNOWN_FIELD),
    "an ICMP type of 256": (
        clause("icmps: [{fields: [{type: 256}]}]"),
        f"{IN}.icmps[0].fields[0].type",
        Reason.BAD_ICMP,
    ),
    "a service without a name": (
        clause("toServices: [{k8sService: {namespace: a}}]", "egress"),
        f"{OUT}.toServices[0].k8sService.serviceName",
        Reason.MISSING,
    ),
    "no service at all": (clause("toServices: []", "egress"), f"{OUT}.toServices", Reason.EMPTY),
    "a value in a key": (
        clause("fromEndpoints: [{matchLabels: {'a=b': c}}]"),
        f"{IN}.fromEndpoints[0].matchLabels[a=b]",
        Reason.BAD_SELECTOR,
    ),
    "specs that are empty": (cnp("") | {"spec": None, "specs": []}, "spec", Reason.MISSING),
}


@pytest.mark.parametrize("row", TRAPS, ids=lambda name: name.replace(" ", "-"))
def test_what_cannot_mean_what_it_says_is_refused_here_only(row: str) -> None:
    raw, path, reason = TRAPS[row]
    judged = judge(raw)
    assert (path, reason) in judged.errors
    assert judged.valid_in_cilium


@pytest.mark.parametrize("rules", ["{}", "{http: []}", "null"], ids=["no-rules", "no-http", "null"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP", "ANY"])
def test_1_empty_rules_are_plain_layer_4(rules: str, protocol: str) -> None:
    raw = ports(f'ports: [{{port: "80", protocol: {protocol}}}], rules: {rules}')
    assert judge(raw).valid
    assert judge(raw).valid_in_cilium
    assert only_entry(raw).l7 == ()


def test_1_an_empty_http_rule_is_layer_7() -> None:
    (rule,) = only_entry(http("")).l7
    assert rule.is_wildcard


def test_2_http_beside_an_empty_kafka_list_is_refused() -> None:
    judged = judge(ports(f"ports: [{TCP80}], rules: {{http: [{{}}], kafka: []}}"))
    assert (f"{IN}.toPorts[0].rules", Reason.CONFLICT) in judged.by_cilium


def test_3_a_parser_without_rules_passes_every_check_of_protocols() -> None:
    judged = judge(ports('ports: [{port: "80", protocol: UDP}], rules: {l7proto: foo}'))
    assert judged.valid_in_cilium
    assert judged.errors == {(f"{IN}.toPorts[0].rules.l7proto", Reason.NOT_SUPPORTED)}


@pytest.mark.parametrize("body", ['port: "5353"', "port: dns", 'port: "53", protocol: SCTP', 'port: "53", endPort: 53'])
def test_4_dns_rules_take_any_port_and_protocol(body: str) -> None:
    judged = judge(ports(f"ports: [{{{body}}}], rules: {{dns: [{{matchName: a}}]}}", "egress"))
    assert judged.valid_in_cilium
    assert judged.valid is ("SCTP" not in body)  # nobody speaks it over that


def test_10_names_of_ports_are_in_small_letters_and_may_look_like_numbers() -> None:
    for written, read in (("HTTP", "http"), ("1a", "1a"), ("0x50", "0x50")):
        raw = port(f"port: {written!r}")
        assert judge(raw).valid_in_cilium
        assert only_entry(raw).ports[0].ports == read
    assert (f"{AT_PORT}.port", Reason.REWRITTEN) in judge(port("port: '0x50'")).warnings


def test_11_an_exception_may_be_all_there_is() -> None:
    judged = judge(clause("fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/8]}]"))
    assert judged.valid_in_cilium
    assert judged.valid
    assert (f"{IN}.fromCIDRSet[0].except[0]", Reason.SELECTS_NOTHING) in judged.warnings


def test_12_bare_addresses_and_host_bits_are_read() -> None:
    judged = judge(clause("fromCIDR: [10.1.2.3, 10.1.2.3/8, 'fd00::1']"))
    assert judged.valid_in_cilium
    assert judged.policy is not None
    found = [str(getattr(peer, "prefix", "")) for peer in judged.policy.rules[0].ingress[0].peers or ()]
    assert found == ["10.1.2.3/32", "10.0.0.0/8", "fd00::1/128"]
    assert (f"{IN}.fromCIDR[1]", Reason.REWRITTEN) in judged.warnings


def test_13_both_names_in_a_dns_rule_and_none() -> None:
    for body, reason in (("matchName: a, matchPattern: b", Reason.REWRITTEN), ("", Reason.SELECTS_NOTHING)):
        judged = judge(ports(f"ports: [{PORT53}], rules: {{dns: [{{{body}}}]}}", "egress"))
        assert judged.valid_in_cilium
        assert (f"{OUT}.toPorts[0].rules.dns[0]", reason) in judged.warnings
    assert judge(clause("toFQDNs: [{}]", "egress")).valid_in_cilium


@pytest.mark.parametrize("entity", ["world-ipv4", "world-ipv6"])
def test_14_the_schema_lacks_two_entities_that_are_read_here(entity: str) -> None:
    judged = judge(clause(f"fromEntities: [{entity}]"))
    assert judged.valid
    assert judged.by_cilium == {(f"{IN}.fromEntities[0]", Reason.NOT_IN_SCHEMA)}


def test_15_any_number_of_prefix_lengths() -> None:
    prefixes = ", ".join(f"10.0.0.0/{length}" for length in range(8, 33))
    judged = judge(clause(f"fromCIDR: [{prefixes}]"))
    assert judged.valid
    assert judged.valid_in_cilium


def test_17_server_names_with_any_protocol() -> None:
    judged = judge(ports(f"ports: [{PORT53}], serverNames: [a.io]", "egress"))
    assert judged.valid_in_cilium
    assert judged.errors == {(f"{OUT}.toPorts[0].serverNames", Reason.NOT_SUPPORTED)}


def test_19_numbers_and_names_of_icmp_types() -> None:
    judged = judge(
        clause(
            "icmps: [{fields: [{type: 8}, {type: '3'}, {type: EchoReply}, {family: IPv6, type: PacketTooBig},"
            " {type: ExtendedEchoReply}]}]"
        )
    )
    assert judged.policy is not None
    found = [(spec.protocol, spec.ports) for spec in judged.policy.rules[0].ingress[0].to_ports[0].ports]
    v4 = [(Protocol.ICMP, PortRange(number, number)) for number in (8, 3, 0)]
    assert found == [*v4, (Protocol.ICMPV6, PortRange(2, 2)), (Protocol.ICMP, PortRange(43, 43))]
    assert judged.by_cilium == {(f"{IN}.icmps[0].fields[4].type", Reason.NOT_IN_SCHEMA)}
