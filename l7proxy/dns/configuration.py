"""What the proxy is told: slots (a proxy port and its rules) and options; and its form on disk. Pure.

Whom the kernel sends to a slot is the kernel's business (docs/architecture.md). A slot may still name the group that it
belongs to, and its rules the identities of servers: then the proxy holds them to it as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from l7proxy.dns.wire import NXDOMAIN, REFUSED
from policies.types import PORT_MAX, Protocol

FORMAT: Final = 1
REJECTIONS: Final = {"refused": REFUSED, "nameError": NXDOMAIN}  # Cilium's words (facts 6.2)
_PROTOCOLS: Final = (Protocol.UDP, Protocol.TCP)


class ConfigurationError(ValueError):
    """The configuration cannot be used; one line says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class NameRules:
    """Which names may be asked of which servers. No names and no patterns: every name (an empty list of rules does)."""

    origin: str = ""  # which clause of which policy, for flows
    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    servers: frozenset[int] | None = None  # identities; None: whoever the kernel sends here


@dataclass(frozen=True, slots=True)
class Slot:
    """A proxy port, and what those may ask who are redirected to it."""

    name: str
    proxy_port: int
    protocol: Protocol
    rules: tuple[NameRules, ...] = ()  # none: everything is denied
    group: int | None = None  # the policy group of the pods; None: any
    first_port: int = 0  # of the server
    last_port: int = PORT_MAX


@dataclass(frozen=True, slots=True)
class Options:
    """Of the whole proxy. Times in seconds."""

    rejection: str = "refused"  # a key of REJECTIONS
    query_timeout: float = 10.0  # as Cilium: then nothing is answered (facts 6.2)
    hold_limit: float = 1.0  # how long an answer may wait until its addresses are in force
    release_late: bool = False  # what becomes of it then: released, as Cilium does, or withheld


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything at once, swapped whole."""

    revision: str
    slots: tuple[Slot, ...] = ()
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        places = [(slot.protocol, slot.proxy_port) for slot in self.slots]
        if len(set(places)) != len(places):
            raise ConfigurationError("two slots share a proxy port")
        for slot in self.slots:
            if slot.protocol not in _PROTOCOLS:
                raise ConfigurationError(f"slot {slot.name}: DNS is spoken over UDP and TCP, not {slot.protocol.name}")
            if not 0 < slot.proxy_port <= PORT_MAX or not 0 <= slot.first_port <= slot.last_port <= PORT_MAX:
                raise ConfigurationError(f"slot {slot.name}: ports are not within 1..{PORT_MAX} in order")
        if self.options.rejection not in REJECTIONS:
            raise ConfigurationError(f"rejection is none of {', '.join(sorted(REJECTIONS))}")
        if self.options.query_timeout <= 0 or self.options.hold_limit <= 0:
            raise ConfigurationError("a time limit is not above zero")


def encode(configuration: Configuration) -> str:
    """The text for the disk: sorted, so that the same configuration is the same text."""
    options = configuration.options
    stored = {
        "format": FORMAT,
        "revision": configuration.revision,
        "options": {name: getattr(options, name) for name in Options.__dataclass_fields__},
        "slots": [
            _slot_to_dict(slot) for slot in sorted(configuration.slots, key=lambda s: (s.protocol, s.proxy_port))
        ],
    }
    return json.dumps(stored, sort_keys=True) + "\n"


def decode(text: str) -> Configuration:
    """The configuration of a text that `encode` wrote; ConfigurationError for anything else."""
    try:
        stored = json.loads(text)
        if stored["format"] != FORMAT:
            raise ConfigurationError(f"format {stored['format']!r} is not {FORMAT}")
        return Configuration(
            str(stored["revision"]), tuple(map(_slot_of, stored["slots"])), Options(**stored["options"])
        )
    except ConfigurationError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as failed:
        raise ConfigurationError(f"is not a configuration: {failed}") from None


def _slot_to_dict(slot: Slot) -> dict[str, Any]:
    rules = [
        {
            "origin": rule.origin,
            "names": sorted(rule.names),
            "patterns": sorted(rule.patterns),
            "servers": None if rule.servers is None else sorted(rule.servers),
        }
        for rule in slot.rules
    ]
    return {
        "name": slot.name,
        "proxy_port": slot.proxy_port,
        "protocol": slot.protocol.name,
        "group": slot.group,
        "first_port": slot.first_port,
        "last_port": slot.last_port,
        "rules": rules,
    }


def _slot_of(stored: Mapping[str, Any]) -> Slot:
    rules = tuple(
        NameRules(
            str(rule["origin"]),
            tuple(map(str, rule["names"])),
            tuple(map(str, rule["patterns"])),
            None if rule["servers"] is None else frozenset(map(int, rule["servers"])),
        )
        for rule in stored["rules"]
    )
    return Slot(
        str(stored["name"]),
        int(stored["proxy_port"]),
        Protocol[stored["protocol"]],
        rules,
        None if stored["group"] is None else int(stored["group"]),
        int(stored["first_port"]),
        int(stored["last_port"]),
    )
