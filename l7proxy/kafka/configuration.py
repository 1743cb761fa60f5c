"""What the proxy is told: slots with their proxy ports, and options. Pure.

Whom the kernel sends to a slot is the kernel's business (docs/architecture.md): the proxy judges by the port at which
something came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.ir import L7Parser, Listening, Slot
from policies.types import PORT_MAX, Protocol


class ConfigurationError(ValueError):
    """The configuration cannot be used; one line says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of the whole proxy. `hide_topics`: who asks for all topics sees those that a rule allows, as brokers do; without
    it, all names are shown."""

    hide_topics: bool = True


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything at once, swapped whole."""

    listening: tuple[Listening, ...] = ()
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        taken: dict[int, str] = {}
        for one in self.listening:
            slot, port = one.slot, one.port
            if slot.parser is not L7Parser.KAFKA or slot.rule_set.http or slot.rule_set.dns:
                raise ConfigurationError(f"slot {slot.name}: its rules are not Kafka's")
            if slot.protocol is not Protocol.TCP:
                raise ConfigurationError(f"slot {slot.name}: Kafka is spoken over TCP, not {slot.protocol.name}")
            if not 0 < port <= PORT_MAX:
                raise ConfigurationError(f"slot {slot.name}: {port} is not a port")
            if (other := taken.setdefault(port, slot.name)) != slot.name:
                raise ConfigurationError(f"slot {slot.name}: port {port} is that of slot {other}")

    @property
    def places(self) -> Mapping[int, Slot]:
        """Which slot is served where."""
        return {one.port: one.slot for one in self.listening}
