"""The two ADS protocols as state machines: requests and snapshots in, responses and facts out.

Pure: no socket, no clock, no await, so every interleaving is a plain test. Reading of the protocol (docs/xds.md, from
https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol):
- the first request of a type on a stream is always answered, whatever version it claims: a client that NACKed may
  report the old version and hold something else (envoy issue 12592);
- before the first snapshot nothing is answered, not even emptily: an incomplete world would be taken for the whole;
- a request with an old nonce says nothing about the newest response;
- what was NACKed is not sent again until it changes: the refused version counts as sent ("parked"). A NACK is reported
  and answered by nothing; who handles it mends the world and calls on_snapshot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from envoy.service.discovery.v3.discovery_pb2 import Resource as DeltaResource

from xds.resources import FILTER, TYPE_ORDER, WHOLE_WORLD_TYPES, Key, Resource
from xds.snapshot import Snapshot, version_of
from xds.subscription import WILDCARD, Subscription

MAX_TYPES = 16  # resource types that one stream may ask for
MAX_NAMES = 100_000  # names of one type that one stream may ask for
# Delta responses of one type that may await their ACK; as filters are told one by one there may be many.
WINDOW = 64

_ABSENT = ""  # the version of a resource of which the client has been told that it does not exist


class ProtocolError(ValueError):
    """The client does what no client may; its stream is closed with this text."""


@dataclass(frozen=True, slots=True)
class Send:
    """A response to put on the stream."""

    message: DiscoveryResponse | DeltaDiscoveryResponse


@dataclass(frozen=True, slots=True)
class Acked:
    """The client has accepted a response of this type: these versions, and that these resources are gone."""

    type_url: str
    versions: Mapping[Key, str]
    removed: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Nacked:
    """The client has refused a response with these versions, and says why."""

    versions: Mapping[Key, str]
    removed: frozenset[Key]
    message: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The client does not hold these any more, or asks for them as if it did not: earlier ACKs of them are void."""

    keys: frozenset[Key]


Output = Send | Acked | Nacked | Forgotten
_Watch = TypeVar("_Watch", "_SotwWatch", "_DeltaWatch")


@dataclass(frozen=True, slots=True)
class _Sent:
    """A response that is, or was, on its way."""

    nonce: str
    version: str
    versions: Mapping[str, str]
    removed: frozenset[str] = frozenset()

    def without(self, names: Collection[str]) -> _Sent:
        versions = {name: version for name, version in self.versions.items() if name not in names}
        return replace(self, versions=versions, removed=self.removed.difference(names))

    def keyed(self, type_url: str) -> Mapping[Key, str]:
        return {Key(type_url, name): version for name, version in self.versions.items()}

    def keyed_removed(self, type_url: str) -> frozenset[Key]:
        return frozenset(Key(type_url, name) for name in self.removed)


class _Nonces:
    """Rises by one with each response of a stream; what it looks like is nobody's business."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> str:
        self._last += 1
        return str(self._last)


@dataclass(slots=True)
class _SotwWatch:
    type_url: str
    subscription: Subscription = field(default_factory=Subscription)
    sent: _Sent | None = None
    is_awaiting: bool = False  # the answer to `sent`: the next response waits for it, and says the newest then
    held: dict[str, str] = field(default_factory=dict)  # name -> version last sent
    acked: frozenset[str] = frozenset()


class SotwSession:
    """State of the world (StreamAggregatedResources): one response per type under way, with its whole world; of types
    that allow it (filters) one resource after the other, so that a NACK names its culprit."""

    def __init__(self, world: Snapshot | None) -> None:
        self._world = world
        self._nonces = _Nonces()
        self._watches: dict[str, _SotwWatch] = {}

    def on_request(self, request: DiscoveryRequest) -> list[Output]:
        """One request of the client; raises ProtocolError when it may not be served."""
        _check(request.type_url, self._watches.keys(), len(request.resource_names))
        watch = self._watches.get(request.type_url)
        if watch is None or not request.response_nonce:
            watch = self._watches[request.type_url] = _SotwWatch(request.type_url)
        elif watch.sent is None or request.response_nonce != watch.sent.nonce:
            return []
        outputs = list(self._answer(watch, request))
        outputs += self._subscribe(watch, request.resource_names)
        return outputs if _is_refusal(outputs) else [*outputs, *self._due(watch)]

    def on_snapshot(self, world: Snapshot) -> list[Output]:
        """A new world: what is due to the client now, in the order of types."""
        self._world = world
        return [output for watch in _in_order(self._watches) for output in self._due(watch)]

    def _subscribe(self, watch: _SotwWatch, names: Collection[str]) -> Iterator[Output]:
        """A name that was not asked for a moment ago is sent even if it was sent before: Envoy forgets a filter when
        it gives up a listener, and has asked for `*` meanwhile, as its list of names was empty."""
        added = set(names) - watch.subscription.names - {WILDCARD}
        watch.subscription.replace(names)
        if watch.type_url in WHOLE_WORLD_TYPES:
            return
        yield from _forget(watch, added | {name for name in watch.held if not watch.subscription.wants(name)})

    def _answer(self, watch: _SotwWatch, request: DiscoveryRequest) -> Iterator[Output]:
        """What the request says about the response that it answers; a request that only changes names says it again."""
        if watch.sent is None or not watch.is_awaiting:
            return
        watch.is_awaiting = False
        versions = watch.sent.keyed(watch.type_url)
        removed = watch.sent.keyed_removed(watch.type_url)
        if request.HasField("error_detail"):
            yield Nacked(versions, removed, request.error_detail.message)
        else:
            watch.acked = frozenset(watch.sent.versions)
            yield Acked(watch.type_url, versions, removed)

    def _due(self, watch: _SotwWatch) -> Iterator[Output]:
        if self._world is None or watch.is_awaiting:
            return
        wanted = {n: r for n, r in self._world.of_type(watch.type_url).items() if watch.subscription.wants(n)}
        if watch.type_url in WHOLE_WORLD_TYPES:
            version = version_of(wanted.values())
            if watch.sent is None or watch.sent.version != version:
                yield self._send(watch, wanted, version)
            return
        # This protocol cannot say that such a resource is gone; what refers to it goes, and that is acknowledged.
        yield from _forget(watch, watch.held.keys() - wanted.keys())
        for name, changed in wanted.items():
            if watch.held.get(name) != changed.version:
                yield self._send(watch, {name: changed}, version_of([changed]))
                return

    def _send(self, watch: _SotwWatch, resources: Mapping[str, Resource], version: str) -> Send:
        is_whole = watch.type_url in WHOLE_WORLD_TYPES
        removed = (watch.acked - resources.keys()) if is_whole else frozenset[str]()
        versions = {name: resource.version for name, resource in resources.items()}
        watch.sent = _Sent(self._nonces.next(), version, versions, removed)
        watch.is_awaiting = True
        watch.held = versions if is_whole else {**watch.held, **versions}
        return Send(
            DiscoveryResponse(
                type_url=watch.type_url,
                version_info=version,
                nonce=watch.sent.nonce,
                resources=[resource.to_any() for resource in resources.values()],
            )
        )


@dataclass(slots=True)
class _DeltaWatch:
    type_url: str
    subscription: Subscription = field(default_factory=Subscription)
    held: dict[str, str] = field(default_factory=dict)  # name -> version sent, or _ABSENT
    pending: dict[str, _Sent] = field(default_factory=dict)  # by nonce
    is_answered: bool = False
    has_more: bool = False  # due, but the window was full


class DeltaSession:
    """Delta (DeltaAggregatedResources): what has changed against what the client was sent on this stream."""

    def __init__(self, world: Snapshot | None) -> None:
        self._world = world
        self._nonces = _Nonces()
        self._watches: dict[str, _DeltaWatch] = {}

    def on_request(self, request: DeltaDiscoveryRequest) -> list[Output]:
        """One request of the client; raises ProtocolError when it may not be served."""
        watch = self._watches.get(request.type_url)
        known = len(watch.subscription.names) if watch else 0
        _check(request.type_url, self._watches.keys(), known + len(request.resource_names_subscribe))
        is_first = watch is None
        if watch is None:
            watch = self._watches[request.type_url] = _DeltaWatch(request.type_url)
        outputs = list(self._answer(watch, request))
        asks = bool(is_first or request.resource_names_subscribe or request.resource_names_unsubscribe)
        if asks:
            outputs += self._subscribe(watch, request, is_first=is_first)
        refills = watch.has_more and len(watch.pending) <= WINDOW // 2  # not at each ACK: it looks at everything
        if _is_refusal(outputs) or not (asks or refills):
            return outputs
        return [*outputs, *self._due(watch)]

    def on_snapshot(self, world: Snapshot) -> list[Output]:
        """A new world: what is due to the client now, in the order of types."""
        self._world = world
        return [output for watch in _in_order(self._watches) for output in self._due(watch)]

    def _subscribe(self, watch: _DeltaWatch, request: DeltaDiscoveryRequest, *, is_first: bool) -> Iterator[Output]:
        """[sub] Who subscribes again is sent again; who unsubscribes from a name while `*` lasts is told again."""
        names, gone = request.resource_names_subscribe, request.resource_names_unsubscribe
        watch.subscription.change(names, gone, is_first=is_first)
        yield from _forget(watch, {*names, *gone} - {WILDCARD})
        if is_first:
            # Claimed from an earlier stream, of whatever version: sent again if it exists, told gone if it does not.
            watch.held.update((name, "claimed") for name in request.initial_resource_versions)

    def _answer(self, watch: _DeltaWatch, request: DeltaDiscoveryRequest) -> Iterator[Output]:
        sent = watch.pending.pop(request.response_nonce, None)
        if sent is None:  # a request of its own accord, or an answer to nothing that awaits one
            return
        versions, removed = sent.keyed(watch.type_url), sent.keyed_removed(watch.type_url)
        if request.HasField("error_detail"):
            yield Nacked(versions, removed, request.error_detail.message)
        else:
            yield Acked(watch.type_url, versions, removed)

    def _due(self, watch: _DeltaWatch) -> Iterator[Output]:
        if self._world is None:
            return
        wants = watch.subscription.wants
        exist = {n: r for n, r in self._world.of_type(watch.type_url).items() if wants(n)}
        changed = [resource for name, resource in exist.items() if watch.held.get(name) != resource.version]
        absent = watch.subscription.names - exist.keys()
        gone = sorted(n for n in watch.held.keys() - exist.keys() | absent if watch.held.get(n) != _ABSENT and wants(n))
        if watch.type_url == FILTER:
            batches: list[tuple[list[Resource], list[str]]] = [([resource], []) for resource in changed]
            batches += [([], gone)] if gone else []
        else:
            must_answer = not watch.is_answered and watch.subscription.is_wildcard
            batches = [(changed, gone)] if changed or gone or must_answer else []
        watch.has_more = False
        for resources, removed in batches:
            if len(watch.pending) >= WINDOW:
                watch.has_more = True
                return
            yield self._send(watch, resources, removed)

    def _send(self, watch: _DeltaWatch, resources: list[Resource], removed: list[str]) -> Send:
        nonce, version = self._nonces.next(), version_of(resources)
        versions = {resource.key.name: resource.version for resource in resources}
        watch.pending[nonce] = _Sent(nonce, version, versions, frozenset(removed))
        watch.held.update(versions)
        watch.held.update((name, _ABSENT) for name in removed)
        watch.is_answered = True
        return Send(
            DeltaDiscoveryResponse(
                type_url=watch.type_url,
                system_version_info=version,
                nonce=nonce,
                resources=[DeltaResource(name=r.key.name, version=r.version, resource=r.to_any()) for r in resources],
                removed_resources=removed,
            )
        )


def _check(type_url: str, known: Collection[str], names: int) -> None:
    if not type_url:
        raise ProtocolError("an aggregated stream needs a type_url in each request")
    if type_url not in known and len(known) >= MAX_TYPES:
        raise ProtocolError(f"more than {MAX_TYPES} resource types on one stream")
    if names > MAX_NAMES:
        raise ProtocolError(f"more than {MAX_NAMES} resource names of {type_url}")


def _forget(watch: _SotwWatch | _DeltaWatch, names: Collection[str]) -> Iterator[Output]:
    """Forget what the client was sent under these names; answers to responses under way say nothing of them then."""
    if not names:
        return
    for name in names:
        watch.held.pop(name, None)
    if isinstance(watch, _DeltaWatch):
        watch.pending = {nonce: sent.without(names) for nonce, sent in watch.pending.items()}
    elif watch.sent is not None:
        watch.sent = watch.sent.without(names)
    yield Forgotten(frozenset(Key(watch.type_url, name) for name in names))


def _is_refusal(outputs: Collection[Output]) -> bool:
    """After a NACK nothing is sent before the world has been mended: the caller calls on_snapshot then."""
    return any(isinstance(output, Nacked) for output in outputs)


def _in_order(watches: Mapping[str, _Watch]) -> list[_Watch]:
    """By TYPE_ORDER, types that we do not know last."""
    rank = {type_url: place for place, type_url in enumerate(TYPE_ORDER)}
    return [watches[type_url] for type_url in sorted(watches, key=lambda t: (rank.get(t, len(rank)), t))]
