"""What is in force on one pod, as plain data: the form of `deflector policy show -o json`. Pure.

A running node answers with it on agent.sock; offline it is made from a folder of manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.explaining.differences import origin_to_dict, rule_in_words, rule_to_dict
from policies.ir import DirectionPolicy, HttpRule, L7Rule, NodePolicy, PeerRule, PortPolicy
from policies.types import Direction

Labels = Mapping[int, tuple[str, ...]]


def policy_document(node: NodePolicy, labels: Labels, namespace: str, name: str) -> dict[str, Any] | None:
    """None if no such pod is on this node. `labels` by identity."""
    endpoint = next((e for e in node.endpoints if (e.namespace, e.name) == (namespace, name)), None)
    policy = next((p for p in node.policies if endpoint is not None and p.group == endpoint.group), None)
    if endpoint is None or policy is None:
        return None
    alike = [e for e in node.endpoints if e.group == endpoint.group]
    return {
        "namespace": namespace,
        "name": name,
        "endpoint": endpoint.id,
        "addresses": list(endpoint.addresses),
        "group": {
            "identity": policy.group,
            "labels": list(policy.labels),
            "endpoints": [f"{e.namespace}/{e.name}" for e in alike],
        },
        "revision": node.revision,
        **{d.value: _direction(policy.direction(d), labels) for d in Direction},
    }


def _direction(policy: DirectionPolicy, labels: Labels) -> dict[str, Any]:
    return {"enforced": policy.enforced, "ports": [_port(port, labels) for port in policy.ports]}


def _port(port: PortPolicy, labels: Labels) -> dict[str, Any]:
    return {
        "protocol": port.protocol.name,
        "ports": str(port.ports),
        "peers": [_peer(peer, labels) for peer in port.peers],
    }


def _peer(peer: PeerRule, labels: Labels) -> dict[str, Any]:
    """`identities` is empty for `any`: everybody whom no other rule of the port names."""
    identities = [] if peer.is_wildcard else [{"id": i, "labels": list(labels.get(i, ()))} for i in peer.identities]
    plain: dict[str, Any] = {
        "any": peer.is_wildcard,
        "identities": identities,
        "verdict": peer.verdict.value,
        "by": [origin_to_dict(origin) for origin in peer.origins],
    }
    if peer.rule_set is not None:
        plain |= {
            "slot": peer.slot,
            "parser": peer.rule_set.parser.value,
            "rules": [_rule(rule) for rule in peer.rule_set.rules],
            "void_by": [origin_to_dict(origin) for origin in peer.rule_set.wildcard],
        }
    return plain


def _rule(rule: L7Rule) -> dict[str, Any]:
    plain: dict[str, Any] = {
        rule.parser.value: rule_to_dict(rule),
        "words": rule_in_words(rule),
        "by": [origin_to_dict(origin) for origin in rule.origins],
    }
    if not isinstance(rule, HttpRule):
        return plain
    if rule.header_actions:
        plain["actions"] = [f"{action.mismatch} {action.name}" for action in rule.header_actions]
    return plain | ({"unavailable": rule.unavailable} if rule.unavailable else {})
