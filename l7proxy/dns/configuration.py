"""What the proxy is told: slots with their proxy ports, options, and the names that toFQDNs speak of. Pure.

Whom the kernel sends to a slot is the kernel's business (docs/architecture.md): the proxy judges by the port at which
something came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from l7proxy.dns.wire import NXDOMAIN, REFUSED
from policies.ir import FqdnSelector, Listening, Slot
from policies.types import PORT_MAX, Protocol

REJECTIONS: Final = {"refused": REFUSED, "nameError": NXDOMAIN}  # Cilium's words (facts 6.2)
_PROTOCOLS: Final = (Protocol.UDP, Protocol.TCP)

Place = tuple[Protocol, int]  # a proxy port


class ConfigurationError(ValueError):
    """The configuration cannot be used; one line says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Options:
    """Of the whole proxy. Times in seconds."""

    rejection: str = "refused"  # a key of REJECTIONS
    query_timeout: float = 10.0  # as Cilium: then nothing is answered (facts 6.2)
    hold_limit: float = 1.0  # how long an answer may wait until its addresses are in force
    release_late: bool = False  # what becomes of it then: released, as Cilium does, or withheld
    targets: bool = False  # the targets of CNAMEs are names as well


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything at once, swapped whole. `selectors`: names whose addresses some policy of the node opens."""

    listening: tuple[Listening, ...] = ()
    options: Options = field(default_factory=Options)
    selectors: tuple[FqdnSelector, ...] = ()

    def __post_init__(self) -> None:
        taken: dict[Place, str] = {}
        for one in self.listening:
            slot, port = one.slot, one.port
            if slot.protocol not in _PROTOCOLS:
                raise ConfigurationError(f"slot {slot.name}: DNS is spoken over UDP and TCP, not {slot.protocol.name}")
            if not 0 < port <= PORT_MAX:
                raise ConfigurationError(f"slot {slot.name}: {port} is not a port")
            if (other := taken.setdefault((slot.protocol, port), slot.name)) != slot.name:
                raise ConfigurationError(f"slot {slot.name}: {slot.protocol.name} port {port} is that of slot {other}")
        if self.options.rejection not in REJECTIONS:
            raise ConfigurationError(f"rejection is none of {', '.join(sorted(REJECTIONS))}")
        if self.options.query_timeout <= 0 or self.options.hold_limit <= 0:
            raise ConfigurationError("a time limit is not above zero")

    @property
    def places(self) -> Mapping[Place, Slot]:
        """Which slot is served where."""
        return {(one.slot.protocol, one.port): one.slot for one in self.listening}
