"""What `role: produce` and `role: consume` of Kafka rules stand for on this node: today's APIs, or Cilium's. Pure.

Rules are read with the keys of today's roles. An apiKey is one key, so a rule with several is for a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final

from policies.ir import KafkaRule
from policies.kafka_keys import CILIUM_ROLES, ROLES
from policies.rules import ToPorts


class KafkaRoles(StrEnum):
    """NATIVE: what producers and consumers of today need in practice. CILIUM: the lists of facts 5, and no more."""

    NATIVE = "native"
    CILIUM = "cilium"


_CILIUMS: Final[Mapping[tuple[int, ...], tuple[int, ...]]] = {keys: CILIUM_ROLES[role] for role, keys in ROLES.items()}


def resolve(entry: ToPorts, roles: KafkaRoles) -> ToPorts:
    """An entry of toPorts with the keys that its roles have here; the same one if that changes nothing."""
    if roles is KafkaRoles.NATIVE or not any(isinstance(r, KafkaRule) and r.api_keys in _CILIUMS for r in entry.l7):
        return entry
    rules = (
        replace(rule, api_keys=_CILIUMS.get(rule.api_keys, rule.api_keys)) if isinstance(rule, KafkaRule) else rule
        for rule in entry.l7
    )
    return replace(entry, l7=tuple(sorted(rules, key=lambda rule: rule.match_key)))
