"""The words of xDS: type URLs, the order in which types are told, and Resource, one named piece of configuration.

Pure. A resource's version is its content hash, so equal content is equal version whoever made it; the epoch part lets
the same content be sent once more under a version that the client has not refused (snapshot, cache).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.message import Message

TYPE_PREFIX = "type.googleapis.com/"
CLUSTER = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
ROUTES = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"
FILTER = TYPE_PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
DNS_OPTIONS = TYPE_PREFIX + "deflector.l7.v1.DnsOptions"
KAFKA_OPTIONS = TYPE_PREFIX + "deflector.l7.v1.KafkaOptions"

# What a resource refers to is told before it: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
# ("Eventual consistency considerations": CDS, EDS, LDS, RDS). A filter is referred to by its listener but is told
# after it: Envoy subscribes to the filter only when it knows the listener, and keeps the listener warming until then.
# What holds for all slots of one of our proxies is told before the slots.
TYPE_ORDER: tuple[str, ...] = (CLUSTER, ENDPOINTS, DNS_OPTIONS, KAFKA_OPTIONS, LISTENER, ROUTES, FILTER)

# State-of-the-world responses of these types are the whole world: what is absent is removed (same page, "Knowing when
# a requested resource does not exist"). Of the other types a response may carry a part.
WHOLE_WORLD_TYPES: frozenset[str] = frozenset({CLUSTER, LISTENER})


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A resource's name and type: what the client subscribes to, what it ACKs or NACKs."""

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One named resource: `body` is the message, serialised deterministically; `refers` is what must be there."""

    key: Key
    body: bytes
    digest: str
    refers: tuple[Key, ...] = ()
    epoch: int = 0

    @property
    def version(self) -> str:
        """Opaque to the client, compared for equality only: content hash and epoch."""
        return f"{self.digest}.{self.epoch}"

    def to_any(self) -> AnyProto:
        return AnyProto(type_url=self.key.type_url, value=self.body)


def resource(type_url: str, message: Message, refers: Iterable[Key] = ()) -> Resource:
    """Make a Resource of a message that has a `name` field; same message, same bytes, same digest."""
    body = message.SerializeToString(deterministic=True)
    name: str = message.name  # type: ignore[attr-defined]
    return Resource(Key(type_url, name), body, hashlib.sha256(body).hexdigest()[:16], tuple(sorted(refers)))


@dataclass(frozen=True, slots=True)
class TranslationError:
    """A slot that could not be translated, and why, in one line for the user."""

    slot: str
    message: str


@dataclass(frozen=True, slots=True)
class ResourceTable:
    """What the translator made of one NodePolicy: resources sorted by key, and the slots that are not among them."""

    resources: tuple[Resource, ...]
    errors: tuple[TranslationError, ...] = ()

    def by_key(self) -> Mapping[Key, Resource]:
        return {r.key: r for r in self.resources}


def pack(message: Message) -> AnyProto:
    """Any of a message, with deterministic bytes (Any.Pack alone does not sort map fields)."""
    return AnyProto(
        type_url=TYPE_PREFIX + message.DESCRIPTOR.full_name, value=message.SerializeToString(deterministic=True)
    )
