"""What was seen: what the proxy tells of each query and its answer. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from l7proxy.dns.answers import Gist
from l7proxy.dns.judge import Decision, Reason
from l7proxy.dns.transactions import Client
from l7proxy.dns.wire import Question


class AccessRecord(NamedTuple):
    """A query, or its answer. Refused where there is a reason; a refused query has no answer's record (facts, hubble.md
    5.2). A query that was allowed and got no answer has a second record with the reason."""

    client: Client
    decision: Decision  # of an answer, that about its query
    questions: tuple[Question, ...]
    is_response: bool
    reason: Reason | None = None
    rcode: int = 0
    gist: Gist = Gist()
    rrtypes: tuple[int, ...] = ()
    latency: float = 0.0  # seconds from query to release of the answer


class RecordSink(Protocol):
    """Takes access records. Must not block; what it cannot take it drops, and counts."""

    def seen(self, record: AccessRecord) -> None:
        """A query was judged, or an answer released or withheld."""
