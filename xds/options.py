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
class Options:
    """`reuse_port`: bpf_sk_assign needs kernel 6.6 for SO_REUSEPORT sockets. `ipv6`: listen on [::] as well.
    `log_flush_ms`: how long Envoy may hold an access log entry back."""

    marks: Mapping[Direction, Marks] = field(default_factory=lambda: dict(DEFAULT_MARKS))
    reuse_port: bool = True
    ipv6: bool = True
    access_log_cluster: str = "access_log"
    log_flush_ms: int = 50
