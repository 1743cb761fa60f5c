"""What happened to the agent itself: the messages of GetAgentEvents, and the small ring that keeps the last of them.

Requests have the meaning that they have for flows (facts 2.2). A follower that is too slow is told how many events it
missed, in an event of unknown type: the API has no other place for it. Pure; one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from flow import flow_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import UInt32Value
from observer import observer_pb2

from flows.reading import RequestError

CAPACITY = 1023
PIECE = 256  # events that are sent in one piece
SECOND = 1_000_000_000  # ns


def started(time_ns: int) -> flow_pb2.AgentEvent:
    """The agent runs since this Unix time."""
    return flow_pb2.AgentEvent(
        type=flow_pb2.AGENT_STARTED, agent_start=flow_pb2.TimeNotification(time=_timestamp(time_ns))
    )


def policy_updated(labels: Sequence[str], revision: int, rules: int) -> flow_pb2.AgentEvent:
    """A policy object is new or another one, in force with this revision; `labels` name it."""
    update = flow_pb2.PolicyUpdateNotification(labels=labels, revision=revision, rule_count=rules)
    return flow_pb2.AgentEvent(type=flow_pb2.POLICY_UPDATED, policy_update=update)


def policy_deleted(labels: Sequence[str], revision: int, rules: int) -> flow_pb2.AgentEvent:
    """A policy object is gone."""
    update = flow_pb2.PolicyUpdateNotification(labels=labels, revision=revision, rule_count=rules)
    return flow_pb2.AgentEvent(type=flow_pb2.POLICY_DELETED, policy_update=update)


def endpoint_created(number: int, namespace: str, pod: str, labels: Sequence[str]) -> flow_pb2.AgentEvent:
    """An endpoint of this node is known now."""
    update = flow_pb2.EndpointUpdateNotification(id=number, namespace=namespace, pod_name=pod, labels=labels)
    return flow_pb2.AgentEvent(type=flow_pb2.ENDPOINT_CREATED, endpoint_update=update)


def endpoint_deleted(number: int, namespace: str, pod: str, labels: Sequence[str]) -> flow_pb2.AgentEvent:
    """An endpoint of this node is gone."""
    update = flow_pb2.EndpointUpdateNotification(id=number, namespace=namespace, pod_name=pod, labels=labels)
    return flow_pb2.AgentEvent(type=flow_pb2.ENDPOINT_DELETED, endpoint_update=update)


def regenerated(number: int, labels: Sequence[str], error: str = "") -> flow_pb2.AgentEvent:
    """An endpoint has its policy in force, or an error says why it has not."""
    kind = flow_pb2.ENDPOINT_REGENERATE_FAILURE if error else flow_pb2.ENDPOINT_REGENERATE_SUCCESS
    told = flow_pb2.EndpointRegenNotification(id=number, labels=labels, error=error)
    return flow_pb2.AgentEvent(type=kind, endpoint_regenerate=told)


def ipcache_upserted(cidr: str, identity: int, before: int | None = None) -> flow_pb2.AgentEvent:
    """A prefix has this identity now; `before` is the one that it had."""
    old = None if before is None else UInt32Value(value=before)
    update = flow_pb2.IPCacheNotification(cidr=cidr, identity=identity, old_identity=old)
    return flow_pb2.AgentEvent(type=flow_pb2.IPCACHE_UPSERTED, ipcache_update=update)


def ipcache_deleted(cidr: str, identity: int) -> flow_pb2.AgentEvent:
    """A prefix has no identity of its own any more."""
    update = flow_pb2.IPCacheNotification(cidr=cidr, identity=identity)
    return flow_pb2.AgentEvent(type=flow_pb2.IPCACHE_DELETED, ipcache_update=update)


def remark(about: str, text: str) -> flow_pb2.AgentEvent:
    """Anything else."""
    return flow_pb2.AgentEvent(unknown=flow_pb2.AgentEventUnknown(type=about, notification=text))


@dataclass(frozen=True, slots=True)
class EventReading:
    """A compiled GetAgentEventsRequest. Times are Unix ns."""

    number: int
    first: bool
    follow: bool
    since_ns: int | None
    until_ns: int | None


def compile_events_request(request: observer_pb2.GetAgentEventsRequest) -> EventReading:
    """Raises RequestError."""
    if request.first and request.follow:
        raise RequestError("first cannot be specified with follow")
    since, until = _nanoseconds(request, "since"), _nanoseconds(request, "until")
    return EventReading(request.number, request.first, request.follow, since, until)


class EventRing:
    """The last events, oldest first, by sequence number; times strictly increase."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._events: deque[tuple[int, bytes]] = deque(maxlen=capacity)
        self.end = 0  # sequence number of the next event: how many there ever were
        self._last_ns = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def start(self) -> int:
        """Sequence number of the oldest event that is still here."""
        return self.end - len(self._events)

    def append(self, event: flow_pb2.AgentEvent, node_name: str, time_ns: int) -> None:
        """Readable at once."""
        self._last_ns = max(time_ns, self._last_ns + 1)
        response = observer_pb2.GetAgentEventsResponse(agent_event=event, node_name=node_name)
        response.time.CopyFrom(_timestamp(self._last_ns))
        self._events.append((self._last_ns, response.SerializeToString()))
        self.end += 1

    def between(self, first: int, stop: int) -> list[tuple[int, bytes]]:
        """Times and serialised responses of the events with start <= first <= number < stop."""
        return list(islice(self._events, first - self.start, stop - self.start))


class EventReader:
    """One reader's place in the ring. A reader that does not follow ends where the ring ends now."""

    def __init__(self, ring: EventRing, reading: EventReading, node_name: str) -> None:
        self._ring, self._reading, self._node_name = ring, reading, node_name
        self._end = None if reading.follow else ring.end
        self._next = self._start()
        self._left = reading.number if reading.number and not reading.follow else None
        self.is_done = False

    def _start(self) -> int:
        ring, reading = self._ring, self._reading
        if reading.since_ns is not None:
            times = [time_ns for time_ns, _ in ring.between(ring.start, ring.end)]
            return ring.start + sum(time_ns < reading.since_ns for time_ns in times)
        if reading.first or (not reading.number and not reading.follow):
            return ring.start
        return max(ring.start, ring.end - reading.number)

    def piece(self) -> list[bytes]:
        """The next responses; none where there is nothing new."""
        sent = []
        if (missed := self._ring.start - self._next) > 0:
            lost = remark("events lost", f"{missed} events were overwritten before they were read")
            sent.append(
                observer_pb2.GetAgentEventsResponse(agent_event=lost, node_name=self._node_name).SerializeToString()
            )
            self._next = self._ring.start
        stop = min(self._ring.end if self._end is None else self._end, self._next + PIECE)
        for time_ns, response in self._ring.between(self._next, stop):
            if self._left == 0 or (self._reading.until_ns is not None and time_ns > self._reading.until_ns):
                self.is_done = True
                return sent
            sent.append(response)
            self._next += 1
            self._left = None if self._left is None else self._left - 1
        self.is_done = self._left == 0 or (self._end is not None and self._next >= self._end)
        return sent


def _timestamp(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // SECOND, nanos=time_ns % SECOND)


def _nanoseconds(request: Message, field: str) -> int | None:
    if not request.HasField(field):
        return None
    time: Timestamp = getattr(request, field)
    return time.seconds * SECOND + time.nanos
