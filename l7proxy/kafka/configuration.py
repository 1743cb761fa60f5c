"""What the proxy is told: slots with their proxy ports, and options; and its form on disk. Pure.

Whom the kernel sends to a slot is the kernel's business (docs/architecture.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from policies.ir import KafkaRule, L7Parser, RuleSet, Slot, SlotState
from policies.types import PORT_MAX, Direction, Origin, PortRange, Protocol

FORMAT: Final = 1


class ConfigurationError(ValueError):
    """The configuration cannot be used; one line says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A slot, and where what the kernel sends to it arrives."""

    slot: Slot
    proxy_port: int


@dataclass(frozen=True, slots=True)
class Options:
    """Of the whole proxy. `hide_topics`: who asks for all topics sees those that a rule allows, as brokers do; without
    it, all names are shown."""

    hide_topics: bool = True


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything at once, swapped whole."""

    revision: str
    served: tuple[Served, ...] = ()
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        ports = [one.proxy_port for one in self.served]
        if len(set(ports)) != len(ports):
            raise ConfigurationError("two slots share a proxy port")
        for one in self.served:
            if one.slot.parser is not L7Parser.KAFKA or one.slot.rule_set.http or one.slot.rule_set.dns:
                raise ConfigurationError(f"slot {one.slot.name}: is not of Kafka")
            if one.slot.protocol is not Protocol.TCP:
                raise ConfigurationError(f"slot {one.slot.name}: Kafka is spoken over TCP")
            if not 0 < one.proxy_port <= PORT_MAX:
                raise ConfigurationError(
                    f"slot {one.slot.name}: proxy port {one.proxy_port} is not within 1..{PORT_MAX}"
                )


def encode(configuration: Configuration) -> str:
    """The text for the disk: sorted, so that the same configuration is the same text."""
    served = sorted(configuration.served, key=lambda one: one.proxy_port)
    stored = {
        "format": FORMAT,
        "revision": configuration.revision,
        "options": {each.name: getattr(configuration.options, each.name) for each in fields(Options)},
        "served": [{"proxy_port": one.proxy_port, "slot": _slot_to_dict(one.slot)} for one in served],
    }
    return json.dumps(stored, sort_keys=True) + "\n"


def decode(text: str) -> Configuration:
    """The configuration of a text that `encode` wrote; ConfigurationError for anything else."""
    try:
        stored = json.loads(text)
        if stored["format"] != FORMAT:
            raise ConfigurationError(f"format {stored['format']!r} is not {FORMAT}")
        served = tuple(Served(_slot_of(one["slot"]), int(one["proxy_port"])) for one in stored["served"])
        return Configuration(str(stored["revision"]), served, Options(**stored["options"]))
    except ConfigurationError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as failed:
        raise ConfigurationError(f"is not a configuration: {failed}") from None


def _slot_to_dict(slot: Slot) -> dict[str, Any]:
    return {
        "name": slot.name,
        "direction": slot.direction.value,
        "group": slot.group,
        "ports": [slot.ports.first, slot.ports.last],
        "state": slot.state.value,
        "wildcard": list(map(_origin_to_list, slot.rule_set.wildcard)),
        "rules": [
            {
                "api_keys": list(rule.api_keys),
                "api_version": rule.api_version,
                "client_id": rule.client_id,
                "topic": rule.topic,
                "origins": list(map(_origin_to_list, rule.origins)),
            }
            for rule in slot.rule_set.kafka
        ],
    }


def _slot_of(stored: Mapping[str, Any]) -> Slot:
    rules = tuple(
        KafkaRule(
            tuple(map(int, rule["api_keys"])),
            None if rule["api_version"] is None else int(rule["api_version"]),
            str(rule["client_id"]),
            str(rule["topic"]),
            tuple(map(_origin_of, rule["origins"])),
        )
        for rule in stored["rules"]
    )
    first, last = stored["ports"]
    return Slot(
        str(stored["name"]),
        Direction(stored["direction"]),
        int(stored["group"]),
        Protocol.TCP,
        PortRange(int(first), int(last)),
        RuleSet(wildcard=tuple(map(_origin_of, stored["wildcard"])), kafka=rules),
        SlotState(stored["state"]),
        L7Parser.KAFKA,
    )


def _origin_to_list(origin: Origin) -> list[str]:
    return [origin.kind, origin.namespace, origin.name, origin.path]


def _origin_of(stored: list[str]) -> Origin:
    kind, namespace, name, path = map(str, stored)
    return Origin(kind, namespace, name, path)
