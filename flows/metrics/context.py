"""Context options: which labels beside its own each series of a metric has, and their values for a flow. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from flow import flow_pb2

from flows.metrics.sides import IDENTIFIERS, PARTS, Side, sides

LABELS: Final = (*(f"{side}_{part}" for side in ("source", "destination") for part in PARTS), "traffic_direction")
DIRECTIONS: Final = {flow_pb2.INGRESS: "ingress", flow_pb2.EGRESS: "egress"}
# option (lower case) -> label, direction that it is for (None: both)
_CONTEXTS: Final = {
    "sourcecontext": ("source", None),
    "sourceegresscontext": ("source", flow_pb2.EGRESS),
    "sourceingresscontext": ("source", flow_pb2.INGRESS),
    "destinationcontext": ("destination", None),
    "destinationegresscontext": ("destination", flow_pb2.EGRESS),
    "destinationingresscontext": ("destination", flow_pb2.INGRESS),
}
LABELS_CONTEXT: Final = "labelscontext"

Identifiers = tuple[Callable[[Side], str], ...]
Value = Callable[[flow_pb2.Flow, tuple[Side, Side]], str]


class ContextError(ValueError):
    """An option that does not exist, or has a value that does not."""


class Context:
    """Extra labels: `names` in order; `values` of a flow in the same order."""

    def __init__(self, options: Mapping[str, Iterable[str]]) -> None:
        """`options`: name -> values; names are case-insensitive. Raises ContextError."""
        wanted, contexts = frozenset[str](), dict[str, dict[int | None, Identifiers]]()
        for name, values in options.items():
            if name.lower() == LABELS_CONTEXT:
                wanted = _known(name, values, LABELS)
            elif name.lower() in _CONTEXTS:
                label, direction = _CONTEXTS[name.lower()]
                chosen = tuple(IDENTIFIERS[value] for value in _in_order(name, values))
                contexts.setdefault(label, {})[direction] = chosen
            else:
                raise ContextError(f"{name} is no context option")
        both = [(label, _part(label)) for label in LABELS if label in wanted]
        both += [
            (label, _contextual(label, contexts[label])) for label in ("source", "destination") if label in contexts
        ]
        self.names = tuple(label for label, _ in both)
        self._values = tuple(value for _, value in both)
        self._pod_labels = _pod_labels(self.names, options)

    def values(self, flow: flow_pb2.Flow, is_swapped: bool = False) -> tuple[str, ...]:
        """The values of the labels; with `is_swapped`, client and server of a response."""
        if not self._values:
            return ()
        ends = sides(flow, is_swapped)
        return tuple(value(flow, ends) for value in self._values)

    def about_pod(self, namespace: str, name: str) -> Callable[[tuple[str, ...]], bool] | None:
        """A test for values of these labels: are they of this pod? None if no label says which pod it is."""
        if not self._pod_labels:
            return None
        full = f"{namespace}/{name}"
        texts = {"pod": full, "pod-name": name}
        own = [(index, texts[kind], where) for index, kind, where in self._pod_labels]

        def is_about(values: tuple[str, ...]) -> bool:
            return any(
                values[index] == text and (where is None or values[where] == namespace) for index, text, where in own
            )

        return is_about


def _pod_labels(names: tuple[str, ...], options: Mapping[str, Iterable[str]]) -> list[tuple[int, str, int | None]]:
    """Labels that name a pod: index, how it is written, index of the label with its namespace."""
    found: list[tuple[int, str, int | None]] = []
    for end in ("source", "destination"):
        if f"{end}_pod" in names:
            where = names.index(f"{end}_namespace") if f"{end}_namespace" in names else None
            found.append((names.index(f"{end}_pod"), "pod-name", where))
        identifiers = {
            v for name, values in options.items() if _CONTEXTS.get(name.lower(), ("",))[0] == end for v in values
        }
        found += [(names.index(end), kind, None) for kind in ("pod", "pod-name") if kind in identifiers]
    return found


def is_option(name: str) -> bool:
    """Whether a metric's option is one of these."""
    return name.lower() == LABELS_CONTEXT or name.lower() in _CONTEXTS


def direction_text(flow: flow_pb2.Flow) -> str:
    """ingress, egress or unknown."""
    return DIRECTIONS.get(flow.traffic_direction, "unknown")


def _known(option: str, values: Iterable[str], known: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(values)
    if unknown := sorted(chosen - set(known)):
        raise ContextError(f'{option}: "{unknown[0]}" is none of {", ".join(known)}')
    return chosen


def _in_order(option: str, values: Iterable[str]) -> list[str]:
    chosen = list(values)
    _known(option, chosen, IDENTIFIERS)
    return chosen


def _part(label: str) -> Value:
    end, _, name = label.partition("_")
    if label == "traffic_direction":
        return lambda flow, _: direction_text(flow)
    get, index = PARTS[name], 0 if end == "source" else 1
    return lambda _, ends: get(ends[index])


def _contextual(label: str, contexts: Mapping[int | None, Identifiers]) -> Value:
    """The first that is not empty, of those for the flow's direction or else of those for both."""
    index = 0 if label == "source" else 1
    general = contexts.get(None, ())

    def value(flow: flow_pb2.Flow, ends: tuple[Side, Side]) -> str:
        for identifier in contexts.get(flow.traffic_direction, general):
            if found := identifier(ends[index]):
                return found
        return ""

    return value
