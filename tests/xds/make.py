"""Makers: IR values for the tests of xds/, as short as the stories they tell."""

from __future__ import annotations

from policies.ir import HeaderMatch, HttpRule, NodePolicy, RuleSet, Slot, SlotState
from policies.types import Direction, Origin, PortRange, Protocol

ORIGIN = Origin("CiliumNetworkPolicy", "default", "rule1", "spec.ingress[0].toPorts[0].rules.http[0]")


def rule(method: str = "", path: str = "", host: str = "", **headers: str | None) -> HttpRule:
    """An HTTP rule; headers as keywords, `_` for `-`, None for presence."""
    matches = tuple(HeaderMatch(name.replace("_", "-"), value) for name, value in headers.items())
    return HttpRule(method, path, host, matches, (ORIGIN,))


def rules(*http: HttpRule, wildcard: bool = False) -> RuleSet:
    return RuleSet(tuple(sorted(http, key=lambda r: r.match_key)), (ORIGIN,) if wildcard else ())


def slot(
    name: str = "ingress:256:80",
    *http: HttpRule,
    direction: Direction = Direction.INGRESS,
    state: SlotState = SlotState.ACTIVE,
    ports: PortRange | None = None,
    wildcard: bool = False,
) -> Slot:
    return Slot(name, direction, 256, Protocol.TCP, ports or PortRange(80, 80), rules(*http, wildcard=wildcard), state)


def node(*slots: Slot) -> NodePolicy:
    return NodePolicy(1, slots=slots)
