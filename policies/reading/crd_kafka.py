"""rules.kafka of Cilium's policies: raw entries -> KafkaRule (facts 5). Pure. An object may have ten thousand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from policies.errors import Reason
from policies.ir import KafkaRule
from policies.kafka_keys import CILIUM_KEYS, KEYS, TOPIC_KEYS, key_of, last_version, name_of, role_keys
from policies.reading.crd_scope import Scope
from policies.reading.fields import Findings, Path, Raw, Schema, mapping, text
from policies.types import Origin

TOPIC_MAX: Final = 255  # characters (Cilium: MaxTopicLen)
CLIENT_ID_MAX: Final = 32767  # bytes: the most that the protocol's strings hold
_KAFKA: Final = Schema.of("role", "apiKey", "apiVersion", "clientID", "topic")
_ROLES: Final = ("produce", "consume")
_CILIUM_TOPIC: Final = re.compile(r"[a-zA-Z0-9\\._-]+")  # a backslash too: Cilium's own slip, which its Envoy refuses
_API_VERSION: Final = re.compile(r"\+?[0-9]+|-0+")
_API_VERSION_MAX: Final = 32767
_BROKER_TOPIC_MAX: Final = 249  # characters (Kafka: Topic.MAX_NAME_LENGTH)


def read_kafka_rules(written: Sequence[Any], path: Path, scope: Scope) -> tuple[KafkaRule, ...]:
    """The rules, sorted, each match once; of two equal ones the first stays."""
    if not scope.allows("Kafka rules", len(written), path):
        return ()
    findings = scope.findings
    rules: dict[tuple[object, ...], KafkaRule] = {}
    for i, item in enumerate(written):
        raw = mapping(item, path[i], findings)
        rule = _read_rule(raw, path[i], findings, scope.origin(path[i])) if raw is not None else None
        if rule is not None:
            known = rules.setdefault(rule.match_key, rule)
            if known is not rule:
                findings.warn(path[i], Reason.SHADOWED, f"the same as {known.origins[0].path}")
    return tuple(sorted(rules.values(), key=lambda rule: rule.match_key))


def _read_rule(raw: Raw, path: Path, findings: Findings, origin: Origin) -> KafkaRule | None:
    """One entry; None after a finding that refuses it."""
    before = len(findings.errors)
    _KAFKA.check(raw, path, findings)
    value: Mapping[str, str] = {name: text(raw, name, path, findings) for name in sorted(_KAFKA.known)}
    if value["role"] and value["apiKey"]:
        findings.add(path, Reason.CONFLICT, "cannot set both role and apiKey")
    keys = _read_keys(value, path, findings)
    version = _read_version(value["apiVersion"], path / "apiVersion", findings)
    _check_topic(value["topic"], path / "topic", findings)
    client = value["clientID"]
    if client and (not client.isprintable() or len(client.encode()) > CLIENT_ID_MAX):
        words = f"at most {CLIENT_ID_MAX} bytes of printable characters"
        findings.ours(path / "clientID", Reason.BAD_KAFKA, words)
    if len(findings.errors) > before:
        return None
    rule = KafkaRule(keys, version, client, value["topic"], (origin,))
    _advise(rule, path, findings)
    return rule


def _advise(rule: KafkaRule, path: Path, findings: Findings) -> None:
    """What a rule with a topic may not mean: only kinds of requests that name topics are restricted by one."""
    if not rule.topic:
        return
    if rule.api_keys and not TOPIC_KEYS.intersection(rule.api_keys):
        words = f"requests of {name_of(rule.api_keys[0])} name no topic: they pass whatever this says"
        findings.warn(path / "topic", Reason.L7_VOIDED, words)
    known = rule.api_keys or tuple(KEYS.values())
    if rule.api_version is not None and rule.api_version > max(map(last_version, known)):
        words = f"version {rule.api_version} cannot be read, so nobody can tell its topics: this rule matches nothing"
        findings.warn(path / "apiVersion", Reason.SELECTS_NOTHING, words)


def _read_keys(value: Mapping[str, str], path: Path, findings: Findings) -> tuple[int, ...]:
    role, name = value["role"], value["apiKey"]
    key = key_of(name)
    if role and role not in _ROLES:
        findings.add(path / "role", Reason.BAD_KAFKA, f'"{role}" is none of {", ".join(_ROLES)}')
    elif role:
        return role_keys(role)
    if name and key is None:
        findings.add(path / "apiKey", Reason.BAD_KAFKA, f'"{name}" is the name of no API')
    elif key is not None:
        if key not in CILIUM_KEYS:
            findings.theirs(path / "apiKey", Reason.BAD_KAFKA, f'"{name}" is no API key that Cilium knows')
        return (key,)
    return ()


def _read_version(written: str, path: Path, findings: Findings) -> int | None:
    if not written:
        return None
    if not _API_VERSION.fullmatch(written) or len(written) > 16 or int(written) > _API_VERSION_MAX:
        findings.add(path, Reason.BAD_KAFKA, f'"{written}" is no number within 0..{_API_VERSION_MAX}')
        return None
    return int(written)


def _check_topic(topic: str, path: Path, findings: Findings) -> None:
    if topic and (len(topic) > TOPIC_MAX or not _CILIUM_TOPIC.fullmatch(topic)):
        words = f'a topic has at most {TOPIC_MAX} letters, digits, "-", "_", "."'
        findings.add(path, Reason.BAD_KAFKA, words)
    elif "\\" in topic:
        findings.ours(
            path, Reason.BAD_KAFKA, "no topic has a backslash; Cilium's Envoy refuses the whole policy for it"
        )
    elif len(topic) > _BROKER_TOPIC_MAX or topic in (".", ".."):
        findings.warn(path, Reason.SELECTS_NOTHING, "no broker has a topic of this name")
