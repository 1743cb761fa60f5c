"""What the translator must be told about the node: choices of the agent, the same for every slot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.types import Direction


@dataclass(frozen=True, slots=True)
class Marks:
    """SO_MARK values of one direction (docs/architecture.md B): accepted sockets and upstream sockets."""

    accepted: int
    upstream: int


DEFAULT_MARKS: Mapping[Direction, Marks] = {
    Direction.INGRESS: Marks(accepted=0xC00, upstream=0xA00),
    Direction.EGRESS: Marks(accepted=0xD00, upstream=0xB00),
}


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """What holds for all DNS slots of a node. Times in seconds; `rejection` is what a query is answered that policy
    denies: refused or nameError (facts 6.2)."""

    rejection: str = "refused"
    query_timeout: float = 10.0  # as Cilium: then nothing is answered
    hold_limit: float = 1.0  # how long an answer may wait until its addresses are in force
    release_late: bool = False  # what becomes of it then: released, as Cilium does, or withheld
    targets: bool = False  # the targets of CNAMEs are names as well
    by_endpoint: bool = False  # an address is open to who has learned it; else to the whole node


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """What holds for all Kafka slots of a node. `hide_topics`: who asks for all topics hears of those that a rule
    allows, as brokers do it; without it, of all."""

    hide_topics: bool = True


@dataclass(frozen=True, slots=True)
class Options:
    """`reuse_port`: bpf_sk_assign needs kernel 6.6 for SO_REUSEPORT sockets. `ipv6`: listen on [::] as well.
    `log_flush_ms`: how long Envoy may hold an access log entry back."""

    marks: Mapping[Direction, Marks] = field(default_factory=lambda: dict(DEFAULT_MARKS))
    reuse_port: bool = True
    ipv6: bool = True
    access_log_cluster: str = "access_log"
    log_flush_ms: int = 50
    dns: DnsSettings = DnsSettings()
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
