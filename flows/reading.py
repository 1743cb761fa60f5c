"""Where a reader of the ring starts and when it ends: the arithmetic of GetFlows (facts 2.2). Pure.

Always oldest first. Losses pass every filter and every time, and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from observer import observer_pb2

from flows.mask import Mask
from flows.ring import Event, Ring
from flows.sieve import Sieve


class RequestError(ValueError):
    """A request that contradicts itself."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A compiled GetFlowsRequest. Times are Unix ns; `limit` is how many matching flows to send, None: no limit."""

    sieve: Sieve | None  # None: every flow is wanted
    mask: Mask
    number: int
    first: bool
    follow: bool
    since_ns: int | None
    until_ns: int | None

    @property
    def limit(self) -> int | None:
        """In follow mode the number says only how far to go back."""
        return self.number if self.number and not self.follow else None

    @property
    def back(self) -> int:
        """How many matching flows before `start` are to be found and sent first."""
        return 0 if self.first or self.since_ns is not None else self.number

    def wants(self, event: Event) -> bool:
        """Whether a flow matches the filters."""
        return self.sieve is None or self.sieve.passes(event)

    def start(self, ring: Ring) -> int:
        """Sequence number of the first event to look at, after those that are found going back."""
        if self.since_ns is not None:
            return ring.first_since(self.since_ns)
        if self.first or (self.number == 0 and not self.follow):
            return ring.oldest
        return ring.end


def compile_request(request: observer_pb2.GetFlowsRequest) -> Reading:
    """Check and compile a request. Raises RequestError, FilterError or MaskError."""
    if request.first and request.follow:
        raise RequestError("first cannot be specified with follow")
    has_filters = bool(request.whitelist or request.blacklist)
    # clients up to 1.18 send their mask under "experimental"
    mask = request.field_mask if request.HasField("field_mask") else request.experimental.field_mask
    return Reading(
        sieve=Sieve(request.whitelist, request.blacklist) if has_filters else None,
        mask=Mask(mask.paths),
        number=request.number,
        first=request.first,
        follow=request.follow,
        since_ns=_nanoseconds(request, "since"),
        until_ns=_nanoseconds(request, "until"),
    )


def _nanoseconds(request: Message, field: str) -> int | None:
    if not request.HasField(field):
        return None
    time: Timestamp = getattr(request, field)
    return time.seconds * 1_000_000_000 + time.nanos
