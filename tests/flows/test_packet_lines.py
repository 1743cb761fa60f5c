"""What people read when a packet is dropped, denied or let through: from the kernel's event to the printed line."""

from __future__ import annotations

from typing import Any

import pytest
from flow import flow_pb2
from observer import observer_pb2

from flows.lookups import PolicyRef
from flows.printer import Printer, Style
from flows.record import PacketKind, PacketVerdict
from policies.types import Direction, Protocol
from tests.flows.make import Galaxy, drop, flows_in, intake

DENYING = PolicyRef("no-rebels", "default", "CiliumNetworkPolicy")
CLUSTERWIDE = PolicyRef("empire", "", "CiliumClusterwideNetworkPolicy")
PING = {"protocol": Protocol.ICMP, "icmp_type": 8, "source_port": 0, "destination_port": 0, "tcp_flags": 0}
PING6 = {
    **PING,
    "protocol": Protocol.ICMPV6,
    "icmp_type": 128,
    "source_ip": "fd00::3",
    "destination_ip": "fd00::7",
}
VERDICT = {"kind": PacketKind.POLICY_VERDICT}
ALLOWED = {"verdict": PacketVerdict.FORWARDED, "drop_reason": 0}
TRACED = {"kind": PacketKind.TRACE, **ALLOWED}

# the kernel's event, and the line without its time
LINES: list[tuple[dict[str, Any], str]] = [
    (
        {},
        "default/xwing:50000 (ID:3333) <> default/deathstar-1:80 (ID:4711) Policy denied DROPPED (TCP Flags: SYN)",
    ),
    (
        {"drop_reason": 181},
        "default/xwing:50000 (ID:3333) <> default/deathstar-1:80 (ID:4711) Policy denied by denylist DROPPED "
        "(TCP Flags: SYN)",
    ),
    (
        {**VERDICT, "drop_reason": 133},
        "default/xwing:50000 (ID:3333) <> default/deathstar-1:80 (ID:4711) policy-verdict:none INGRESS DENIED "
        "(TCP Flags: SYN)",
    ),
    (
        {**VERDICT, "drop_reason": 181, "match_type": 2},
        "default/xwing:50000 (ID:3333) <> default/deathstar-1:80 (ID:4711) policy-verdict:L3-L4 INGRESS DENIED "
        "BY no-rebels (CiliumNetworkPolicy), empire (CiliumClusterwideNetworkPolicy) (TCP Flags: SYN)",
    ),
    (
        {**VERDICT, "drop_reason": 181, "match_type": 1, "direction": Direction.EGRESS, "protocol": Protocol.UDP},
        "default/xwing:50000 (ID:3333) <> default/deathstar-1:80 (ID:4711) policy-verdict:L3-Only EGRESS DENIED "
        "BY no-rebels (CiliumNetworkPolicy), empire (CiliumClusterwideNetworkPolicy) (UDP)",
    ),
    (
        {**PING, "drop_reason": 181},
        "default/xwing (ID:3333) <> default/deathstar-1 (ID:4711) Policy denied by denylist DROPPED "
        "(ICMPv4 EchoRequest)",
    ),
    (
        {**PING, **VERDICT, **ALLOWED, "match_type": 2},
        "default/xwing (ID:3333) -> default/deathstar-1 (ID:4711) policy-verdict:L3-L4 INGRESS ALLOWED "
        "BY no-rebels (CiliumNetworkPolicy), empire (CiliumClusterwideNetworkPolicy) (ICMPv4 EchoRequest)",
    ),
    (
        {**PING, **TRACED, "icmp_type": 0, "trace_reason": 3},
        "default/deathstar-1 (ID:4711) <- default/xwing (ID:3333) to-endpoint FORWARDED (ICMPv4 EchoReply)",
    ),
    (
        {**PING, **TRACED, "icmp_type": 3, "icmp_code": 1, "trace_reason": 4},
        "default/xwing (ID:3333) -> default/deathstar-1 (ID:4711) to-endpoint FORWARDED "
        "(ICMPv4 DestinationUnreachable(Host))",
    ),
    (
        PING6,
        "fd00::3 (world) <> fd00::7 (world) Policy denied DROPPED (ICMPv6 EchoRequest)",
    ),
    (
        {**PING6, "icmp_type": 1, "icmp_code": 4},
        "fd00::3 (world) <> fd00::7 (world) Policy denied DROPPED (ICMPv6 DestinationUnreachable(PortUnreachable))",
    ),
    (
        {"protocol": Protocol.SCTP, "destination_port": 3868},
        "default/xwing:50000 (ID:3333) <> default/deathstar-1:3868 (ID:4711) Policy denied DROPPED (SCTP)",
    ),
    (
        {"protocol": 47, "source_port": 0, "destination_port": 0, "drop_reason": 137, "direction": None},
        "default/xwing (ID:3333) <> default/deathstar-1 (ID:4711) CT: Unknown L4 protocol DROPPED ()",
    ),
]


def seen(changes: dict[str, Any]) -> flow_pb2.Flow:
    """The flow of one event, where two policies have a say."""
    made = intake(Galaxy(policies=(DENYING, CLUSTERWIDE)))
    made.packets([drop(**changes)])
    (flow,) = flows_in(made.ring)
    return flow


def printed(changes: dict[str, Any]) -> str:
    text = Printer(Style(policy_names=True)).text(observer_pb2.GetFlowsResponse(flow=seen(changes)))
    return text.partition(": ")[2].rstrip("\n")


@pytest.mark.parametrize(("changes", "line"), LINES)
def test_lines(changes: dict[str, Any], line: str) -> None:
    assert printed(changes) == line


def test_a_drop_by_a_deny_rule_has_its_own_reason_and_only_its_verdict_names_the_rule() -> None:
    dropped, denied = seen({"drop_reason": 181}), seen({**VERDICT, "drop_reason": 181, "match_type": 2})
    for flow in (dropped, denied):
        assert (flow.verdict, flow.drop_reason, flow.drop_reason_desc) == (
            *(flow_pb2.DROPPED, 181),
            flow_pb2.POLICY_DENY,
        )
        assert not flow.HasField("is_reply")
    assert (dropped.event_type.sub_type, denied.event_type.sub_type) == (181, 0)
    assert not dropped.ingress_denied_by
    assert [policy.name for policy in denied.ingress_denied_by] == ["no-rebels", "empire"]
    assert not denied.ingress_allowed_by
