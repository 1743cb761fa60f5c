"""Field masks over flows: keep what was asked for. Pure.

A path is made of proto names (`IP`, `source.pod_name`). A nested path always leaves its parent behind, be it empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flow import flow_pb2

# What the hubble 1.19 command line asks for when it prints compact, dict or tab output.
HUBBLE_DEFAULT = frozenset(
    (
        *("time", "verdict", "ethernet", "IP", "l4", "Type", "node_name", "l7", "event_type", "is_reply", "Summary"),
        *("source.identity", "source.namespace", "source.pod_name", "source_service"),
        *("destination.identity", "destination.namespace", "destination.pod_name", "destination_service"),
        "ip_trace_id",
    )
)
# What its output shows as well but its mask forgets: without these it prints 8.8.8.8 for dns.google and
# `policy-verdict:none TRAFFIC_DIRECTION_UNKNOWN` (facts 2.2).
HUBBLE_FORGOT = frozenset(
    (
        *("source_names", "destination_names", "policy_match_type", "traffic_direction", "auth_type"),
        *("egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by"),
        *("debug_capture_point", "sock_xlate_point"),
    )
)

Tree = dict[str, "Tree"]  # field -> what to keep of it; nothing named: all


class MaskError(ValueError):
    """A path that names no field."""


class Mask:
    """A compiled mask. No paths: everything is kept. Raises MaskError."""

    def __init__(self, paths: Iterable[str]) -> None:
        wanted = set(paths)
        if wanted == HUBBLE_DEFAULT:
            wanted |= HUBBLE_FORGOT
        self._tree: Tree = {}
        for path in sorted(wanted):
            self._add(path)

    def apply(self, flow: flow_pb2.Flow) -> None:
        """Clear what was not asked for, in place."""
        if self._tree:
            _prune(flow, self._tree)

    def _add(self, path: str) -> None:
        descriptor: Any = flow_pb2.Flow.DESCRIPTOR
        tree = self._tree
        parts = path.split(".")
        for at, part in enumerate(parts):
            field = descriptor.fields_by_name.get(part) if descriptor is not None else None
            inner = at < len(parts) - 1
            if field is None or (inner and (field.is_repeated or field.message_type is None)):
                raise MaskError(f"invalid fieldmask: flow has no field {path!r}")
            if not inner:
                tree[part] = {}  # the whole of it, also where a part was asked for
                return
            if part in tree and not tree[part]:
                return  # the whole is kept already: sorted paths name it first
            tree = tree.setdefault(part, {})
            descriptor = field.message_type


def _prune(message: Any, tree: Tree) -> None:
    for field, _ in message.ListFields():
        if field.name not in tree:
            message.ClearField(field.name)
    for name, inner in tree.items():
        if inner:
            part = getattr(message, name)
            part.SetInParent()
            _prune(part, inner)
