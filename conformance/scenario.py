"""Suites as data: frozen values; conformance.parse makes them from YAML. Pure.

Suite     a galaxy, policies by name, scenarios
Scenario  steps: apply, remove, refuse | probe | resolve, rename | run | open, close | traffic, stream, settle | node
          | sneak
Probe     who asks whom for what, and what is expected: an outcome and the flows that tell of it
Question  the same of a name: conformance.question
Errand    the same of Kafka topics: conformance.errand
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conformance.blueprint import Blueprint, DnsName
from conformance.bypass import Allowed, Trick
from conformance.errand import Errand
from conformance.question import Question
from conformance.target import Target


class Outcome(StrEnum):
    """What a probe is to end in; conformance.expectation says which flows must tell of it."""

    ANSWERED = "answered"  # answered, whoever was in between
    DIRECT = "direct"  # answered, and no proxy in between
    OPEN = "open"  # direct, and nobody judges: no policy is in force for it
    ALLOWED = "allowed"  # direct, because a policy says so
    PASSED = "passed"  # allowed, and nobody answers
    FORWARDED = "forwarded"  # judged by a proxy and passed on
    DENIED = "denied"  # judged by a proxy: 403 Access denied
    DROPPED = "dropped"  # no answer, packets dropped by policy
    FORBIDDEN = "forbidden"  # the same, and a deny rule is the reason
    REFUSED = "refused"  # the connection is refused or reset
    REDIRECTED = "redirected"  # answered by the proxy with a redirect to the normalised path
    REJECTED = "rejected"  # answered by the proxy itself with another `status`: nothing that it would pass on


class Level(StrEnum):
    """CORE: a node without it is not conformant. EXTENDED: what a user may expect beyond."""

    CORE = "core"
    EXTENDED = "extended"


INGRESS, EGRESS = "ingress", "egress"
PROTOCOLS = {"tcp": 80, "udp": 7007, "sctp": 7007, "icmp": 0}  # and the port that is asked where none is named
FAMILIES = (4, 6)
GRPC, WEBSOCKET = "grpc", "websocket"
HTTP_VERSIONS = ("1.1", "2", GRPC, WEBSOCKET)


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. `path` goes out as it stands here, dots, slashes and all.

    `http`: 1.1, 2, or what is spoken over it: a gRPC call with `body` as its message, a WebSocket that sends it in a
    frame. `raw` is what goes out instead, byte by byte (latin-1); method and path then say what it is judged as.
    """

    method: str = "GET"
    path: str = "/"
    http: str = "1.1"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    chunked: bool = False
    raw: str = ""

    def __str__(self) -> str:
        over = {"1.1": "", "2": " over HTTP/2"}.get(self.http, f" by {self.http}")
        return f"{self.method} {self.path}" + over + (f" as {self.raw!r}" if self.raw else "")


@dataclass(frozen=True, slots=True)
class Probe:
    """One question and the answer that is right.

    `at` names the directions whose proxies see the request, in order; the last one denies or drops where that is
    expected. `judged` is the path as the proxy sees it, if that is not the one that is sent. `drop_reason` is Hubble's
    name for why packets are dropped. `over` is the name of an open connection. `by` names the policy that the verdict's
    flow must name. `icmp_type` is for pings that are none. `flows` are expected beside those that the outcome implies:
    field -> value, or ~regex.
    """

    source: str
    target: Target
    expect: Outcome
    request: Request | None = None
    protocol: str = "tcp"
    family: int = 4
    status: int = 200
    at: tuple[str, ...] = (INGRESS,)
    judged: str = ""
    drop_reason: str = "POLICY_DENIED"
    body_has: tuple[str, ...] = ()
    body_lacks: tuple[str, ...] = ()
    over: str = ""
    by: str = ""
    icmp_type: int = -1
    flows: tuple[Mapping[str, str], ...] = ()

    def __str__(self) -> str:
        what = f" {self.request}" if self.request else f" {self.protocol.upper()}"
        what += f" type {self.icmp_type}" if self.icmp_type >= 0 else ""
        return f"{self.source} -> {self.target} IPv{self.family}{what}" + (f" over {self.over}" if self.over else "")


@dataclass(frozen=True, slots=True)
class Apply:
    """Write these policies (new ones and edits alike) at once and wait until they are enforced."""

    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove these policies and wait until that is enforced."""

    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Write a file that is no good. The node must say so (`complaint` is part of what it says) and change nothing."""

    object: str
    text: str
    complaint: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Probes, all at once; one after the other when `in_turn`."""

    probes: tuple[Probe, ...]
    in_turn: bool = False


@dataclass(frozen=True, slots=True)
class Open:
    """Open a keep-alive connection under a name."""

    name: str
    source: str
    target: Target
    family: int = 4


@dataclass(frozen=True, slots=True)
class Close:
    name: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """Start loops of one request on `connections` live connections."""

    name: str
    source: str
    target: Target
    request: Request
    connections: int = 2
    family: int = 4


@dataclass(frozen=True, slots=True)
class Settle:
    """Stop the loops. Answers before the last change of policy must all be `before`, those after it `after`, and those
    in between one of both. `resets`: whether connections may be reset in between."""

    name: str
    before: int
    after: int
    resets: bool = False


class Order(StrEnum):
    """What is done to the node itself. KILL spares its proxies; STOP must leave nothing behind."""

    KILL = "kill"
    STOP = "stop"
    START = "start"


@dataclass(frozen=True, slots=True)
class Command:
    """Kill, stop or start the node; a start waits until it is ready and enforces everything."""

    order: Order


@dataclass(frozen=True, slots=True)
class Sneak:
    """Try each trick of a part of the bypass corpus, from one pod to a recorder in the other."""

    source: str
    target: str
    tricks: tuple[Trick, ...]
    allowed: tuple[Allowed, ...]


@dataclass(frozen=True, slots=True)
class Resolve:
    """Questions to nameservers, all at once; one after the other when `in_turn`."""

    questions: tuple[Question, ...]
    in_turn: bool = False


@dataclass(frozen=True, slots=True)
class Rename:
    """Let nameservers say something else of these names from now on; of the others what the galaxy says."""

    names: tuple[DnsName, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Errands to Kafka brokers: those of one pod one after the other, pods side by side; all in turn when `in_turn`."""

    errands: tuple[Errand, ...]
    in_turn: bool = False


@dataclass(frozen=True, slots=True)
class Stream:
    """Start a loop of one errand by a client that stays connected; settled like traffic, by Kafka's error codes."""

    name: str
    errand: Errand


Step = (
    Apply | Remove | Refuse | Ask | Resolve | Rename | Run | Open | Close | Traffic | Stream | Settle | Command | Sneak
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story: policies that hold at its start, then steps. `flags`: what the node is started with for it."""

    name: str
    title: str
    level: Level
    policies: tuple[str, ...]
    steps: tuple[Step, ...]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy (or what else comes and goes) as a suite writes it: whole Kubernetes objects in one file.

    `object` is its Kubernetes name, which several versions may share: one replaces the other.
    """

    name: str
    object: str
    manifests: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """Scenarios, and the galaxy that they share."""

    name: str
    policies: Mapping[str, Policy]
    scenarios: tuple[Scenario, ...]
    galaxy: Blueprint
