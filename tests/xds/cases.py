"""The nodes behind the golden files: one per thing that a policy can ask of a proxy."""

from __future__ import annotations

from dataclasses import replace

from policies.ir import HeaderAction, L7Parser, Mismatch, NodePolicy, RuleSet, Secret, Slot, SlotState, TlsRule
from policies.types import Direction, PortRange, Protocol
from tests.xds.make import ORIGIN, node, rule, slot

LANDING = rule("POST", "/v1/request-landing")

SERVERS = RuleSet(
    tls=(TlsRule("", "*", (ORIGIN,)), TlsRule("", "**.x.io.", (ORIGIN,)), TlsRule("api.y.io.", "", (ORIGIN,)))
)


def tls(state: SlotState = SlotState.ACTIVE, rules: RuleSet = SERVERS) -> Slot:
    https = PortRange(443, 443)
    return Slot("egress:256:tcp:443:tls", Direction.EGRESS, 256, Protocol.TCP, https, rules, state, L7Parser.TLS)


CASES: dict[str, NodePolicy] = {
    "rule1-l4": node(),  # no rules for HTTP: no slot, no listener
    "rule1-http": node(slot("ingress:256:80", LANDING)),
    "two-policies": node(slot("ingress:256:80", LANDING, rule("PUT", "/v1/exhaust-port", host=r"deathstar\.empire"))),
    "voided": node(slot("ingress:256:80", LANDING, wildcard=True)),
    "ranges": node(
        slot("ingress:256:8000-8010", LANDING, ports=PortRange(8000, 8010)),
        slot("ingress:256:80", rule("GET", "/health")),
    ),
    "retired": node(slot("ingress:256:80", LANDING, state=SlotState.RETIRED)),
    "drained": node(slot("ingress:256:80", LANDING, state=SlotState.DRAINED)),
    "egress": node(slot("egress:256:443", rule("GET|HEAD", "/public(/.*)?"), direction=Direction.EGRESS)),
    "tls": node(tls()),
    "tls-voided": node(tls(rules=replace(SERVERS, wildcard=(ORIGIN,)))),
    "tls-drained": node(tls(SlotState.DRAINED)),
    "tls-retired": node(tls(SlotState.RETIRED, RuleSet())),
    "conditions": node(
        slot(
            "ingress:256:80",
            rule("GET", "/a", x_token=None),
            rule("GET", "/b", x_token="secret"),
            rule("GET", "/v[0-9]+/.*"),
            rule("GET", "/v[0-9]+/x/[0-9]+", host=r".*\.example"),
            rule("", "/any-method"),
            rule("G.*", "/odd-method"),
            rule("", "", host=r"a\.example|b\.example"),
        )
    ),
    "header-actions": node(
        slot(
            "ingress:256:80",
            rule("GET", "/plain"),
            replace(
                rule("GET", "/a(/.*)?"),
                header_actions=(
                    HeaderAction("X-Log", Mismatch.LOG, "1"),
                    HeaderAction("X-Add", Mismatch.ADD, "1"),
                    HeaderAction("X-Del", Mismatch.DELETE, "1"),
                    HeaderAction("X-Rep", Mismatch.REPLACE, Secret("not-so-secret")),
                ),
            ),
        )
    ),
}


def ports_of(policy: NodePolicy, first: int = 10_000) -> dict[str, int]:
    """A proxy port for each slot, in the order of names."""
    return {name: first + place for place, name in enumerate(sorted(one.name for one in policy.slots))}
