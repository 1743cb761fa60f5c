"""Who is who, and what was seen: what the proxy asks of the outside, and tells it. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from l7proxy.dns.answers import Gist
from l7proxy.dns.judge import Reason
from l7proxy.dns.transactions import Client
from l7proxy.dns.wire import Question


class Endpoint(NamedTuple):
    """A pod of this node: its number (docs/decisions/0001) and its policy group."""

    id: int
    group: int


class AccessRecord(NamedTuple):
    """A query, or its answer. Refused where there is a reason; a refused query has no answer's record (facts, hubble.md
    5.2). A query that was allowed and got no answer has a second record with the reason."""

    client: Client
    endpoint: Endpoint | None
    server_identity: int
    questions: tuple[Question, ...]
    is_response: bool
    reason: Reason | None = None
    rule: str = ""  # origin of the rule that allowed
    rcode: int = 0
    gist: Gist = Gist()
    rrtypes: tuple[int, ...] = ()
    latency: float = 0.0  # seconds from query to release of the answer


class Lookup(Protocol):
    """Who is who, by address as text. Asked for every query: must not block."""

    def endpoint(self, address: str) -> Endpoint | None:
        """The pod of this node with that address."""

    def identity(self, address: str) -> int:
        """The identity of an address; the world's where nothing else is known."""


class RecordSink(Protocol):
    """Takes access records. Must not block; what it cannot take it drops, and counts."""

    def seen(self, record: AccessRecord) -> None:
        """A query was judged, or an answer released or withheld."""
