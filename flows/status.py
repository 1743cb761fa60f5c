"""The answer to ServerStatus -> text, as `hubble status` prints it. Pure."""

from __future__ import annotations

from observer import observer_pb2

from flows.gotext import aligned, duration_text, grouped
from flows.jsonpb import to_json


def status_text(target: str, status: observer_pb2.ServerStatusResponse, output: str = "compact") -> str:
    """The status of a healthy server, with line ends; `output` is compact, dict, json or table."""
    match output:
        case "compact":
            return f"Healthcheck (via {target}): Ok\n{_compact(status)}"
        case "dict":
            return "".join(f"{heading:>19}: {cell}\n" for heading, cell in _cells(status, "NUM UNAVAIL. NODES"))
        case "json" | "jsonpb":
            return to_json(status) + "\n"
        case "tab" | "table":
            cells = _cells(status, "NUM UNAVAILABLE NODES")
            rows = ("\t".join(heading for heading, _ in cells), "\t".join(cell for _, cell in cells))
            return aligned("\n".join(rows) + "\n")
    raise ValueError(f"invalid output format: {output} (one of compact, dict, json, table)")


def unhealthy_text(target: str, state: str) -> str:
    """What is said of a server that answers, but not that it is serving."""
    return f"Healthcheck (via {target}): Unavailable: {state}\n"


def _compact(status: observer_pb2.ServerStatusResponse) -> str:
    ratio = f" ({status.num_flows / status.max_flows * 100:.2f}%)" if status.max_flows else ""
    lines = [f"Current/Max Flows: {grouped(status.num_flows)}/{grouped(status.max_flows)}{ratio}"]
    rate = _rate(status)
    if rate == "N/A" and status.uptime_ns:
        rate = f"{status.seen_flows / (status.uptime_ns / 1e9):.2f}"
    lines.append(f"Flows/s: {rate}")
    connected, unavailable = status.num_connected_nodes, status.num_unavailable_nodes
    if status.HasField("num_connected_nodes"):
        total = f"/{connected.value + unavailable.value}" if status.HasField("num_unavailable_nodes") else ""
        lines.append(f"Connected Nodes: {connected.value}{total}")
    if unavailable.value:
        lines.append(f"Unavailable Nodes: {unavailable.value}")
        names = sorted(status.unavailable_nodes)
        if names and unavailable.value > len(names):
            names.append(f"and {unavailable.value - len(names)} more...")
        lines += [f"  - {name}" for name in names]
    return "\n".join(lines) + "\n"


def _cells(status: observer_pb2.ServerStatusResponse, unavailable: str) -> tuple[tuple[str, str], ...]:
    def nodes(field: str) -> str:
        return str(getattr(status, field).value) if status.HasField(field) else "N/A"

    return (
        ("NUM FLOWS", grouped(status.num_flows)),
        ("MAX FLOWS", grouped(status.max_flows)),
        ("SEEN FLOWS", grouped(status.seen_flows)),
        ("FLOWS PER SECOND", _rate(status)),
        ("UPTIME", duration_text(status.uptime_ns)),
        ("NUM CONNECTED NODES", nodes("num_connected_nodes")),
        (unavailable, nodes("num_unavailable_nodes")),
        ("VERSION", status.version),
    )


def _rate(status: observer_pb2.ServerStatusResponse) -> str:
    return f"{status.flows_rate:.2f}" if status.flows_rate > 0 else "N/A"
