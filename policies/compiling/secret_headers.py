"""Secrets into HTTP rules: what a rule of a policy asks for once the Secrets that it names are known. Pure.

A secret's value takes precedence over the inline one; where there is neither, the rule matches nothing (facts 4.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from policies.ir import HeaderAction, HeaderMatch, HttpRule, L7Rule
from policies.ir import Secret as SecretValue
from policies.objects import PodKey, Secret
from policies.rules import SecretHeader, SecretRule, ToPorts


def resolve(entry: ToPorts, secrets: Mapping[PodKey, Secret]) -> ToPorts:
    """An entry of toPorts with the values of these secrets put into its HTTP rules; the same one if it needs none."""
    if not entry.secret_rules:
        return entry
    known: dict[object, L7Rule] = {
        secret_rule.rule.match_key: _resolved(secret_rule, secrets) for secret_rule in entry.secret_rules
    }
    rules = (known.get(rule.match_key, rule) for rule in entry.l7)
    return ToPorts(entry.ports, tuple(sorted(rules, key=lambda rule: rule.match_key)))


def _resolved(secret_rule: SecretRule, secrets: Mapping[PodKey, Secret]) -> HttpRule:
    matches: list[HeaderMatch] = []
    actions: list[HeaderAction] = []
    missing: list[str] = []
    for expected in secret_rule.expects:
        if isinstance(expected, SecretHeader):
            value = _value(expected, secrets)
            if value is None:
                missing.append(f"{expected.namespace}/{expected.secret}")
                continue
            if expected.mismatch is None:
                matches.append(HeaderMatch(expected.header, value))
            else:
                actions.append(HeaderAction(expected.header, expected.mismatch, value))
        elif isinstance(expected, HeaderAction):
            actions.append(expected)
        else:
            matches.append(expected)
    if missing:
        return replace(secret_rule.rule, unavailable=f"no value in Secret {', '.join(sorted(set(missing)))}")
    headers = tuple(sorted({*secret_rule.rule.headers, *matches}, key=lambda header: header.key))
    return replace(secret_rule.rule, headers=headers, header_actions=tuple(actions), unavailable="")


def _value(expected: SecretHeader, secrets: Mapping[PodKey, Secret]) -> str | None:
    """The one value of the secret. More than one: nobody can know which is meant."""
    secret = secrets.get(PodKey(expected.namespace, expected.secret))
    values = list(secret.values.values()) if secret is not None else []
    return SecretValue(values[0]) if len(values) == 1 else expected.fallback
