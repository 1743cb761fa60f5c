"""NodePolicy -> ResourceTable: per slot a listener and a filter of the same name, and one cluster for all.

Pure. A slot that cannot be translated becomes an error and the others go on; the cache then keeps what it last served
for that slot, so nothing is undone because one rule is bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policies import ir
from xds.clusters import original_destination
from xds.filters.rbac import filter_resource
from xds.listeners import listener_resource
from xds.options import DEFAULT_MARKS, Marks, Options
from xds.resources import Resource, ResourceTable, TranslationError

__all__ = ["DEFAULT_MARKS", "Marks", "Options", "translate"]

PORT_MIN, PORT_MAX = 1, 65535


def translate(node: ir.NodePolicy, ports: Mapping[str, int], options: Options | None = None) -> ResourceTable:
    """Translate every slot of the node. `ports` gives each slot name its proxy port (the agent's business)."""
    chosen = options or Options()
    resources: list[Resource] = [original_destination()]
    errors: list[TranslationError] = []
    for slot in sorted(node.slots, key=lambda slot: slot.name):
        try:
            resources += tuple(_slot(slot, ports.get(slot.name), chosen))  # both or none
        except ValueError as failed:
            errors.append(TranslationError(slot.name, str(failed)))
    return ResourceTable(tuple(sorted(resources, key=lambda r: r.key)), tuple(errors))


def _slot(slot: ir.Slot, port: int | None, options: Options) -> Iterator[Resource]:
    """Listener and filter; of an inactive slot without a port the filter alone, which judges what Envoy drains."""
    if port is None and slot.state is not ir.SlotState.ACTIVE:
        yield filter_resource(slot)
        return
    if port is None or not PORT_MIN <= port <= PORT_MAX:
        raise ValueError(f"slot {slot.name} has no proxy port" if port is None else f"{port} is not a port")
    yield listener_resource(slot, port, options)
    yield filter_resource(slot)
