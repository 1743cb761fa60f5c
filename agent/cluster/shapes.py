"""Bytes of an object -> the fields that are read here, and no others. Pure.

An object of an API server is five thousand bytes, and the policies need two hundred of them. Fields that are not named
here are passed over by the decoder and never become Python objects: ten thousand pods cost a sixth of what it takes to
decode them whole (docs/decisions/0013). Policies are kept whole, but for what servers and other tools write into them.

Where an object does not have the types that are named here, it is decoded whole: its reader knows the words for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

Raw = dict[str, Any]
Decode = Callable[[bytes | msgspec.Raw], Raw]
Labels = dict[str, str]


class Owner(msgspec.Struct, omit_defaults=True):
    kind: str | None = None
    name: str | None = None
    controller: bool | None = None


class Meta(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    namespace: str | None = None
    resourceVersion: str | None = None
    labels: Labels | None = None


class OwnedMeta(Meta, omit_defaults=True):
    uid: str | None = None
    generateName: str | None = None
    ownerReferences: list[Owner] | None = None


class DatedMeta(Meta, omit_defaults=True):
    creationTimestamp: str | None = None


class Container(msgspec.Struct, omit_defaults=True):
    ports: list[Any] | None = None
    restartPolicy: str | None = None


class PodSpec(msgspec.Struct, omit_defaults=True):
    nodeName: str | None = None
    hostNetwork: bool | None = None
    serviceAccountName: str | None = None
    serviceAccount: str | None = None
    containers: list[Container] | None = None
    initContainers: list[Container] | None = None


class PodStatus(msgspec.Struct, omit_defaults=True):
    phase: str | None = None
    podIP: str | None = None
    podIPs: list[Any] | None = None


class PodShape(msgspec.Struct, omit_defaults=True):
    metadata: OwnedMeta
    spec: PodSpec | None = None
    status: PodStatus | None = None


class MetaShape(msgspec.Struct, omit_defaults=True):
    metadata: Meta


class NodeStatus(msgspec.Struct, omit_defaults=True):
    addresses: list[Any] | None = None


class NodeShape(msgspec.Struct, omit_defaults=True):
    metadata: Meta
    status: NodeStatus | None = None


class ServiceSpec(msgspec.Struct, omit_defaults=True):
    clusterIP: str | None = None
    clusterIPs: list[Any] | None = None
    ports: list[Any] | None = None
    selector: Labels | None = None


class ServiceShape(msgspec.Struct, omit_defaults=True):
    metadata: Meta
    spec: ServiceSpec | None = None


class SliceEndpoint(msgspec.Struct, omit_defaults=True):
    addresses: list[Any] | None = None
    conditions: dict[str, bool | None] | None = None


class SliceShape(msgspec.Struct, omit_defaults=True):
    metadata: Meta
    addressType: str | None = None
    endpoints: list[SliceEndpoint] | None = None
    ports: list[Any] | None = None


class IdentityShape(msgspec.Struct, omit_defaults=True, rename={"security_labels": "security-labels"}):
    metadata: DatedMeta
    security_labels: Labels | None = None


class EndpointIdentity(msgspec.Struct, omit_defaults=True):
    id: int | None = None
    labels: list[str] | None = None


class EndpointNetworking(msgspec.Struct, omit_defaults=True):
    addressing: list[Any] | None = None
    node: str | None = None


class EndpointStatus(msgspec.Struct, omit_defaults=True, rename={"named_ports": "named-ports"}):
    identity: EndpointIdentity | None = None
    networking: EndpointNetworking | None = None
    named_ports: list[Any] | None = None


class EndpointShape(msgspec.Struct, omit_defaults=True):
    metadata: Meta
    status: EndpointStatus | None = None


class SlicedEndpoint(msgspec.Struct, omit_defaults=True, rename={"named_ports": "named-ports"}):
    name: str | None = None
    id: int | None = None
    networking: EndpointNetworking | None = None
    named_ports: list[Any] | None = None


class EndpointSliceShape(msgspec.Struct, omit_defaults=True):
    metadata: Meta
    namespace: str | None = None
    endpoints: list[SlicedEndpoint] | None = None


class SecretShape(msgspec.Struct, omit_defaults=True):
    metadata: Meta
    data: Labels | None = None


_WHOLE: Final = msgspec.json.Decoder()
_NOBODY_READS: Final = ("managedFields", "selfLink")


def whole(raw: bytes | msgspec.Raw) -> Raw:
    """Everything but the status, and what other tools keep in the metadata."""
    found = _WHOLE.decode(raw)
    if not isinstance(found, dict):
        raise msgspec.DecodeError("an object must be a mapping")
    found.pop("status", None)
    metadata = found.get("metadata")
    if isinstance(metadata, dict):
        for name in _NOBODY_READS:
            metadata.pop(name, None)
        metadata.pop("annotations", None)  # kubectl keeps the whole object there once more
    return found


def _everything(raw: bytes | msgspec.Raw) -> Raw:
    found = _WHOLE.decode(raw)
    if not isinstance(found, dict):
        raise msgspec.DecodeError("an object must be a mapping")
    return found


def _shaped(shape: type[msgspec.Struct]) -> Decode:
    decoder = msgspec.json.Decoder(shape)

    def decode(raw: bytes | msgspec.Raw) -> Raw:
        try:
            found: Raw = msgspec.to_builtins(decoder.decode(raw))
        except msgspec.ValidationError:
            return _everything(raw)
        return found

    return decode


pod: Final = _shaped(PodShape)
metadata: Final = _shaped(MetaShape)
node: Final = _shaped(NodeShape)
service: Final = _shaped(ServiceShape)
endpoint_slice: Final = _shaped(SliceShape)
identity: Final = _shaped(IdentityShape)
endpoint: Final = _shaped(EndpointShape)
secret: Final = _shaped(SecretShape)
cilium_endpoint_slice: Final = _shaped(EndpointSliceShape)
