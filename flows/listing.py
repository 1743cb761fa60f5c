"""Nodes, namespaces and peers -> text, as `hubble list` and `hubble watch` print them. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message
from observer import observer_pb2
from peer import peer_pb2
from relay import relay_pb2

from flows.gotext import aligned, duration_text
from flows.jsonpb import to_json

OUTPUTS: Final = ("table", "wide", "json")
STATES: Final = {
    relay_pb2.NODE_CONNECTED: "Connected",
    relay_pb2.NODE_UNAVAILABLE: "Unavailable",
    relay_pb2.NODE_GONE: "Gone",
    relay_pb2.NODE_ERROR: "Error",
}
ABSENT: Final = "N/A"


def nodes_text(nodes: Sequence[observer_pb2.Node], output: str) -> str:
    """`output` is one of OUTPUTS."""
    nodes = sorted(nodes, key=lambda node: node.name)
    if output == "json":
        return _json(nodes)
    headings = ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"]
    more = ["VERSION", "ADDRESS", "TLS"] if output == "wide" else []
    rows = [[*headings, *more], *(_node(node, bool(more)) for node in nodes)]
    return aligned("".join("\t".join(row) + "\n" for row in rows))


def namespaces_text(namespaces: Sequence[observer_pb2.Namespace], output: str) -> str:
    """`output` is one of OUTPUTS; the order is the server's."""
    if output == "json":
        return _json(namespaces)
    is_wide = output == "wide"
    rows = ["NAMESPACE\tCLUSTER" if is_wide else "NAMESPACE"]
    rows += [f"{one.namespace}\t{one.cluster}" if is_wide and one.cluster else one.namespace for one in namespaces]
    return aligned("\n".join(rows) + "\n")


def peer_text(news: peer_pb2.ChangeNotification) -> str:
    """One line."""
    kind = peer_pb2.ChangeNotificationType.Name(news.type)
    tls = f" (TLS.ServerName: {news.tls.server_name})" if news.HasField("tls") else ""
    return f"{kind:<12} {news.address} {news.name}{tls}\n"


def _node(node: observer_pb2.Node, is_wide: bool) -> list[str]:
    age = rate = ratio = ABSENT
    seconds = round(node.uptime_ns / 1e9)
    if seconds > 0:
        age, rate = duration_text(seconds * 1_000_000_000), f"{node.seen_flows / seconds:.2f}"
    if node.max_flows:
        ratio = f"{node.num_flows}/{node.max_flows} ({node.num_flows / node.max_flows * 100:6.2f}%)"
    cells = [node.name, STATES.get(node.state, "Unknown"), age, rate, ratio]
    if is_wide:
        tls = ("Enabled" if node.tls.enabled else "Disabled") if node.HasField("tls") else ABSENT
        cells += [node.version or ABSENT, node.address, tls]
    return cells


def _json(messages: Sequence[Message]) -> str:
    return json.dumps([json.loads(to_json(one)) for one in messages], indent=2, ensure_ascii=False) + "\n"
