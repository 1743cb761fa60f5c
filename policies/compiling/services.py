"""What stands behind each service address: the service table of the IR, kept current. Pure.

Only services that changed, whose slices changed, or behind which somebody else lives now are looked at again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from policies.compiling.addresses import AddressBook, service_backends
from policies.compiling.changes import changed_keys
from policies.ir import ServiceAddress
from policies.objects import EndpointSlice, PodKey, Service, ServicePort
from policies.prefixes import Prefix, parse_prefix
from policies.types import IDENTITY_UNKNOWN, Protocol


class ServiceBook:
    """Every ClusterIP and port with the identity and port that its backends have in common."""

    def __init__(self, book: AddressBook) -> None:
        self.table: tuple[ServiceAddress, ...] = ()  # sorted; the same tuple until it changes
        self._book = book
        self._services: Mapping[PodKey, Service] = {}
        self._slices: Mapping[PodKey, EndpointSlice] = {}
        self._pieces: dict[PodKey, dict[PodKey, EndpointSlice]] = {}  # by service
        self._frontends: dict[PodKey, tuple[ServiceAddress, ...]] = {}
        self._behind: dict[str, set[PodKey]] = {}  # address of a backend -> services

    def take(
        self, services: Mapping[PodKey, Service], slices: Mapping[PodKey, EndpointSlice], moved: Iterable[str]
    ) -> None:
        """Follow services and slices; `moved`: prefixes where somebody else lives now."""
        touched = changed_keys(self._services, services)
        for key in changed_keys(self._slices, slices):
            touched |= self._replace(key, self._slices.get(key), slices.get(key))
        self._services, self._slices = services, slices
        for prefix in map(parse_prefix, moved):
            touched |= self._behind_prefix(prefix)
        changed = False
        for key in touched:
            before = self._frontends.pop(key, ())
            service = services.get(key)
            after = tuple(self._of(key, service)) if service is not None else ()
            if after:
                self._frontends[key] = after
            changed |= before != after
        if changed:
            found = (entry for entries in self._frontends.values() for entry in entries)
            self.table = tuple(sorted(found, key=_order))

    def _replace(self, key: PodKey, before: EndpointSlice | None, after: EndpointSlice | None) -> set[PodKey]:
        """Put one slice in the place of another; the services that it is or was of."""
        touched = set()
        for piece in (before, after):
            if piece is None:
                continue
            service = PodKey(piece.namespace, piece.service)
            touched.add(service)
            if piece is before:
                del self._pieces[service][key]
            else:
                self._pieces.setdefault(service, {})[key] = piece
        for service in touched:  # a service may have an address in several slices
            for address in _addresses(before):
                self._behind.get(address, set()).discard(service)
            for piece in self._pieces.get(service, {}).values():
                for address in _addresses(piece):
                    self._behind.setdefault(address, set()).add(service)
        for address in _addresses(before):
            if not self._behind.get(address, True):
                del self._behind[address]
        return touched

    def _behind_prefix(self, prefix: Prefix) -> set[PodKey]:
        if prefix.is_host:
            return self._behind.get(str(prefix).partition("/")[0], set())
        found = (keys for address, keys in self._behind.items() if prefix.contains(parse_prefix(address)))
        return {key for keys in found for key in keys}

    def _of(self, key: PodKey, service: Service) -> Iterator[ServiceAddress]:
        slices = [piece for _, piece in sorted(self._pieces.get(key, {}).items())]
        for address in service.addresses:
            for port in service.ports:
                yield self._frontend(address, port, slices)

    def _frontend(self, address: str, port: ServicePort, slices: Iterable[EndpointSlice]) -> ServiceAddress:
        found = {
            (self._book.identity(backend), target)
            for backend, target in service_backends(slices, port)
            if (":" in backend) == (":" in address)
        }
        identity, target = found.pop() if len(found) == 1 else (IDENTITY_UNKNOWN, 0)
        return ServiceAddress(address, port.port, port.protocol, identity, target)


def _addresses(piece: EndpointSlice | None) -> Iterator[str]:
    return (address for backend in piece.backends for address in backend.addresses) if piece is not None else iter(())


def _order(entry: ServiceAddress) -> tuple[str, int, Protocol, int, int]:
    return (entry.address, entry.port, entry.protocol, entry.identity, entry.target_port)
