"""NodePolicy -> ResourceTable: a table for each proxy, of the slots of its parsers. For Envoy per slot a listener, if
it has a port, and for HTTP a filter of the same name; two clusters. For a proxy of ours per slot with a port a listener
(xds.l7).

Pure. A slot that cannot be translated becomes an error and the others go on; the cache then keeps what it last served
for that slot, so nothing is undone because one rule is bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from policies import ir
from policies.ir import L7Parser
from xds.clusters import original_destinations
from xds.filters.rbac import filter_resource
from xds.l7 import DnsNode, dns_options, kafka_options, l7_listener
from xds.listeners import listener_resource
from xds.options import DEFAULT_MARKS, Marks, Options
from xds.resources import Resource, ResourceTable, TranslationError
from xds.tls import tls_listener_resource

__all__ = ["DEFAULT_MARKS", "Marks", "Options", "Translator", "told_with", "translate"]

PORT_MIN, PORT_MAX = 1, 65535
_TOLD_WITH: Final[Mapping[L7Parser, L7Parser]] = {L7Parser.TLS: L7Parser.HTTP}  # Envoy has both


Input: TypeAlias = tuple[ir.Slot, int | None]


def told_with(parser: L7Parser) -> L7Parser:
    """The parser by which the proxy of this one is known: its own, or that of the proxy which judges both."""
    return _TOLD_WITH.get(parser, parser)


class Translator:
    """Translates one node for the proxy that is known by one parser, again and again, and remembers the slots of the
    last time: at a thousand slots, where one has changed, that is the difference between half a second and a few
    milliseconds."""

    def __init__(self, options: Options | None = None, parser: L7Parser = L7Parser.HTTP) -> None:
        self._options = options or Options()
        self._parser = parser
        self._clusters = original_destinations() if parser is L7Parser.HTTP else ()
        self._last: dict[str, tuple[Input, tuple[Resource, ...]]] = {}

    def translate(self, node: ir.NodePolicy, ports: Mapping[str, int]) -> ResourceTable:
        """Translate every slot of the proxy. `ports` gives slots that are to listen their proxy port, by name."""
        resources: list[Resource] = [*self._clusters, *self._of_the_node(node)]
        errors: list[TranslationError] = []
        remembered: dict[str, tuple[Input, tuple[Resource, ...]]] = {}
        for slot in sorted(self._slots(node), key=lambda slot: slot.name):
            given = (slot, ports.get(slot.name))
            try:
                made = self._made_of(given)
            except ValueError as failed:
                errors.append(TranslationError(slot.name, str(failed)))
            else:
                resources += made
                remembered[slot.name] = (given, made)
        self._last = remembered
        return ResourceTable(tuple(sorted(resources, key=lambda r: r.key)), tuple(errors))

    def _slots(self, node: ir.NodePolicy) -> Iterator[ir.Slot]:
        return (slot for slot in node.slots if told_with(slot.parser) is self._parser)

    def _of_the_node(self, node: ir.NodePolicy) -> Iterator[Resource]:
        if self._parser is L7Parser.DNS:
            yield dns_options(DnsNode(self._options.dns, node.fqdn_selectors))
        elif self._parser is L7Parser.KAFKA:
            yield kafka_options(self._options.kafka)

    def _made_of(self, given: Input) -> tuple[Resource, ...]:
        last = self._last.get(given[0].name)
        return last[1] if last is not None and last[0] == given else tuple(_slot(*given, self._options))


def translate(
    node: ir.NodePolicy,
    ports: Mapping[str, int],
    options: Options | None = None,
    parser: L7Parser = L7Parser.HTTP,
) -> ResourceTable:
    """Translate a node once."""
    return Translator(options, parser).translate(node, ports)


def _slot(slot: ir.Slot, port: int | None, options: Options) -> Iterator[Resource]:
    """What a slot is told as. For Envoy listener and filter; without a port only the filter: the listener has gone, and
    Envoy still judges by the filter what it drains (a filter that goes as well would leave the listener's own deny)."""
    if port is not None and not PORT_MIN <= port <= PORT_MAX:
        raise ValueError(f"{port} is not a port")
    if slot.parser is L7Parser.TLS:
        if port is not None:
            yield tls_listener_resource(slot, port, options)
        return
    if slot.parser is not L7Parser.HTTP:
        if port is not None:
            yield l7_listener(slot, port, ipv6=options.ipv6)
        return
    if port is not None:
        yield listener_resource(slot, port, options)
    yield filter_resource(slot)
