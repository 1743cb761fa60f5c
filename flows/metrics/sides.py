"""Who is at each end of a flow, for labels: as the flow says, or turned round for a response. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from flow import flow_pb2

APP_LABELS: Final = ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")
RESERVED: Final = "reserved:"
APISERVER: Final = "reserved:kube-apiserver"


class Side(NamedTuple):
    """One end."""

    endpoint: flow_pb2.Endpoint
    names: Sequence[str]
    ip: str


def sides(flow: flow_pb2.Flow, is_swapped: bool = False) -> tuple[Side, Side]:
    """Source and destination; with `is_swapped` of a response: client and server."""
    source = Side(flow.source, flow.source_names, flow.IP.source)
    destination = Side(flow.destination, flow.destination_names, flow.IP.destination)
    return (destination, source) if is_swapped else (source, destination)


def _pod(side: Side) -> str:
    namespace, name = side.endpoint.namespace, side.endpoint.pod_name
    return f"{namespace}/{name}" if namespace else name


def _reserved(side: Side) -> str:
    labels = side.endpoint.labels
    if APISERVER in labels:
        return APISERVER
    return next((label for label in labels if label.startswith(RESERVED)), "")


def _workload(side: Side) -> str:
    workloads = side.endpoint.workloads
    if not workloads:
        return ""
    namespace = side.endpoint.namespace
    return f"{namespace}/{workloads[0].name}" if namespace else workloads[0].name


def _workload_name(side: Side) -> str:
    return side.endpoint.workloads[0].name if side.endpoint.workloads else ""


def _workload_kind(side: Side) -> str:
    return side.endpoint.workloads[0].kind if side.endpoint.workloads else ""


def _app(side: Side) -> str:
    for label in side.endpoint.labels:
        if label.startswith(APP_LABELS):
            return label.partition("=")[2]
    return ""


# The values of sourceContext and destinationContext.
IDENTIFIERS: Final[dict[str, Callable[[Side], str]]] = {
    "identity": lambda side: ",".join(side.endpoint.labels),
    "namespace": lambda side: side.endpoint.namespace,
    "pod": _pod,
    "pod-name": lambda side: side.endpoint.pod_name,
    "dns": lambda side: ",".join(side.names),
    "ip": lambda side: side.ip,
    "reserved-identity": _reserved,
    "workload": _workload,
    "workload-name": _workload_name,
    "app": _app,
}
# What labelsContext may name of each side, in the order in which labels are listed.
PARTS: Final[dict[str, Callable[[Side], str]]] = {
    "ip": lambda side: side.ip,
    "pod": lambda side: side.endpoint.pod_name,
    "namespace": lambda side: side.endpoint.namespace,
    "workload": _workload_name,
    "workload_kind": _workload_kind,
    "app": _app,
}
