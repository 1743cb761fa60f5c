"""Responses of GetFlows -> text, line for line what `hubble observe` 1.19 prints (facts section 4). Pure.

A printer returns what goes to standard output; notices about nodes behind a relay go to standard error (`notice`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flow import flow_pb2
from observer import observer_pb2
from relay import relay_pb2

from flows.gotext import TIME_FORMATS, aligned, join_host_port, join_path, quoted, timestamp_text
from flows.jsonpb import to_json
from flows.why import Why
from flows.words import (
    DROP_TEXTS,
    EVENT_TYPES,
    MATCH_TYPES,
    OBSERVATION_POINTS,
    RESERVED_IDENTITIES,
    TRANSLATION_POINTS,
)

OUTPUTS = {"compact": "compact", "dict": "dict", "json": "json", "jsonpb": "json", "tab": "table", "table": "table"}
SEPARATOR = "------------"
NAMES_LENGTH = 50  # characters of a list of node names, roughly
RESET = "\x1b[0m"
COLOURS = {"red": 31, "green": 32, "blue": 34, "cyan": 36, "magenta": 35, "yellow": 33}
OWN_SEQUENCES = (*(f"\x1b[{code}m" for code in COLOURS.values()), RESET)
VERDICT_COLOURS = {
    flow_pb2.FORWARDED: "green",
    flow_pb2.REDIRECTED: "green",
    flow_pb2.DROPPED: "red",
    flow_pb2.ERROR: "red",
    flow_pb2.AUDIT: "yellow",
    flow_pb2.TRACED: "yellow",
    flow_pb2.TRANSLATED: "yellow",
}
POLICY_WORDS = {
    flow_pb2.FORWARDED: "ALLOWED",
    flow_pb2.REDIRECTED: "ALLOWED",
    flow_pb2.DROPPED: "DENIED",
    flow_pb2.ERROR: "DENIED",
    flow_pb2.AUDIT: "AUDITED",
}
HEADINGS = ("SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY")


class PrinterError(ValueError):
    """An option that names nothing we know."""


@dataclass(frozen=True, slots=True)
class Style:
    """How to print. `colour` is decided: whoever knows the terminal resolves "auto"."""

    output: str = "compact"  # compact, dict, json (jsonpb), table (tab)
    colour: bool = False
    node_name: bool = False
    policy_names: bool = False
    ip_translation: bool = True
    time_format: str = "StampMilli"
    debug: bool = False
    bare_json: bool = False  # flows without their envelope, as hubble printed them long ago
    why: bool = False  # say under each flow why its verdict is what it is: compact and dict


class Printer:
    """Prints one stream of responses. Raises PrinterError for a style that cannot be."""

    def __init__(self, style: Style | None = None) -> None:
        self._style = style = style or Style()
        if style.output not in OUTPUTS:
            raise PrinterError(f"invalid output format: {style.output} (one of {', '.join(OUTPUTS)})")
        self._output = OUTPUTS[style.output]
        formats = {name.lower(): layout for name, layout in TIME_FORMATS.items()}
        if style.time_format.lower() not in formats:
            raise PrinterError(f"invalid time format: {style.time_format} (one of {', '.join(TIME_FORMATS)})")
        self._layout = formats[style.time_format.lower()]
        self._colour = style.colour and self._output != "table"
        allowed = [re.escape(sequence) for sequence in OWN_SEQUENCES] if self._colour else []
        self._foreign = re.compile("|".join([*allowed, "\x1b", "\r"]))
        self._lines = 0
        self._table: list[str] = []
        self._why = Why() if style.why and self._output in ("compact", "dict") else None

    def text(self, response: observer_pb2.GetFlowsResponse) -> str:
        """What to write to standard output now; a table comes as a whole from `close`."""
        if response.HasField("flow"):
            return self._count(self._flow(response) + (self._why.lines(response.flow) if self._why else ""))
        if response.HasField("lost_events"):
            return self._count(self._loss(response))
        return ""

    def notice(self, response: observer_pb2.GetFlowsResponse) -> str:
        """What to write to standard error: news about nodes. Without debug only of those that fail."""
        status = response.node_status
        failed = status.state_change in (relay_pb2.NODE_ERROR, relay_pb2.NODE_UNAVAILABLE)
        if not response.HasField("node_status") or not (failed or self._style.debug):
            return ""
        if self._output == "json":
            return to_json(response) + "\n"
        return self._escape(self._node_status(response))

    def close(self) -> str:
        """What is left to write at the end."""
        table, self._table = self._table, []
        return aligned("".join(table)) if table else ""

    def _count(self, text: str) -> str:
        self._lines += 1
        if self._output == "json":
            return text
        text = self._escape(text)
        if self._output == "table":
            self._table.append(text)
            return ""
        return text

    def _escape(self, text: str) -> str:
        """Keep foreign control sequences from reaching the terminal."""
        shown = {"\x1b": "^[", "\r": "\\r"}
        return self._foreign.sub(lambda match: shown.get(match[0], match[0]), text)

    def _flow(self, response: observer_pb2.GetFlowsResponse) -> str:
        if self._output == "json":
            return to_json(response.flow if self._style.bare_json else response) + "\n"
        flow = response.flow
        time = self._time(flow.time if flow.HasField("time") else None)
        if self._output == "compact":
            return self._compact(flow, time)
        source, destination = self._hosts(flow)
        cells = (source, destination, flow_type(flow), self._verdict(flow), self._summary(flow))
        node = (flow.node_name,) if self._style.node_name else ()
        if self._output == "dict":
            return self._dict(time, node, zip(HEADINGS, cells, strict=True))
        return self._row(time, node, cells)

    def _compact(self, flow: flow_pb2.Flow, time: str) -> str:
        node = f" [{flow.node_name}]" if self._style.node_name else ""
        left, right = zip(self._hosts(flow), self._identities(flow), strict=True)
        arrow = "->"
        if not flow.HasField("is_reply"):
            arrow = "<>"
        elif flow.is_reply.value:
            arrow, left, right = "<-", right, left  # the client stays on the left
        return (
            f"{time}{node}: {' '.join(left)} {arrow} {' '.join(right)} "
            f"{flow_type(flow)} {self._verdict(flow)} ({self._summary(flow)})\n"
        )

    def _dict(self, time: str, node: tuple[str, ...], cells: Iterable[tuple[str, str]]) -> str:
        lines = [SEPARATOR] if self._lines else []
        lines.append(f"  TIMESTAMP: {time}")
        lines += [f"       NODE: {name}" for name in node]
        lines += [f"{heading:>11}: {cell}" for heading, cell in cells]
        return "\n".join(lines) + "\n"

    def _row(self, time: str, node: tuple[str, ...], cells: Iterable[str]) -> str:
        heading = ""
        if not self._lines:
            heading = "\t".join(["TIMESTAMP", *(["NODE"] if self._style.node_name else []), *HEADINGS]) + "\n"
        return heading + "\t".join([time, *node, *cells]) + "\n"

    def _loss(self, response: observer_pb2.GetFlowsResponse) -> str:
        if self._output == "json":
            return to_json(response.lost_events if self._style.bare_json else response) + "\n"
        loss = response.lost_events
        time = self._time(response.time if response.HasField("time") else None)
        source = enum_name(flow_pb2.LostEventSource, loss.source)
        span = ""
        if loss.HasField("first") and loss.HasField("last"):
            span = f" (first: {self._time(loss.first)}, last: {self._time(loss.last)})"
        if self._output == "compact":
            return f"{time} EVENTS LOST: {source} CPU({loss.cpu.value}) {loss.num_events_lost}{span}\n"
        node = (response.node_name or "-",) if self._style.node_name else ()
        summary = f"CPU({loss.cpu.value}) - {loss.num_events_lost}{span}"
        if self._output == "dict":
            cells = (("SOURCE", source), ("TYPE", "EVENTS LOST"), ("VERDICT", "-"), ("SUMMARY", summary))
            return self._dict(time, node, cells)
        return self._row(time, node, (source, "-", "EVENTS LOST", "-", summary))

    def _node_status(self, response: observer_pb2.GetFlowsResponse) -> str:
        status = response.node_status
        names = cut_off(status.node_names)
        time = self._time(response.time if response.HasField("time") else None)
        state = enum_name(relay_pb2.NodeState, status.state_change)
        if self._output == "dict":
            separator = f"{SEPARATOR}\n" if self._lines else ""
            self._lines = self._lines or 1
            message = quoted(status.message) if status.message else "N/A"
            return (
                f"{separator}  TIMESTAMP: {time}\n      STATE: {state}\n      NODES: {names}\n    MESSAGE: {message}\n"
            )
        count = len(status.node_names)
        said = {
            relay_pb2.NODE_CONNECTED: f"Receiving flows from {count} nodes: {names}",
            relay_pb2.NODE_UNAVAILABLE: f"{count} nodes are unavailable: {names}",
            relay_pb2.NODE_GONE: f"{count} nodes removed from cluster: {names}",
            relay_pb2.NODE_ERROR: f"Error {quoted(status.message)} on {count} nodes: {names}",
        }
        text = said.get(status.state_change, f"unknown node status event: {to_json(status)}")
        return f"{time} [{response.node_name}]: {text}\n"

    def _time(self, time: Any) -> str:
        return timestamp_text(self._layout, time)

    def _paint(self, colour: str, text: str) -> str:
        return f"\x1b[{COLOURS[colour]}m{text}{RESET}" if self._colour else text

    def _hosts(self, flow: flow_pb2.Flow) -> tuple[str, str]:
        if not flow.HasField("IP"):
            if not flow.HasField("ethernet"):
                return "", ""
            return self._paint("cyan", flow.ethernet.source), self._paint("cyan", flow.ethernet.destination)
        source = self._host(flow, "source", flow.IP.source)
        return source, self._host(flow, "destination", flow.IP.destination)

    def _host(self, flow: flow_pb2.Flow, side: str, ip: str) -> str:
        endpoint, service = getattr(flow, side), getattr(flow, f"{side}_service")
        namespace = service.namespace if flow.HasField(f"{side}_service") else endpoint.namespace
        host = ip
        if self._style.ip_translation:
            names = getattr(flow, f"{side}_names")
            if endpoint.pod_name or service.name:
                host = join_path(namespace, endpoint.pod_name or service.name)
            elif names:
                host = ",".join(names)
        port = port_of(flow, side)
        return self._paint("cyan", join_host_port(host, self._paint("yellow", str(port))) if port else host)

    def _identities(self, flow: flow_pb2.Flow) -> tuple[str, str]:
        return self._identity(flow.source.identity), self._identity(flow.destination.identity)

    def _identity(self, number: int) -> str:
        return self._paint("magenta", f"({RESERVED_IDENTITIES.get(number) or f'ID:{number}'})")

    def _verdict(self, flow: flow_pb2.Flow) -> str:
        verdict = flow.verdict
        text = enum_name(flow_pb2.Verdict, verdict)
        if flow.event_type.type == EVENT_TYPES["policy-verdict"]:
            text = POLICY_WORDS.get(verdict, text)
            if self._style.policy_names:
                text += policy_names(flow, text)
        return self._paint(VERDICT_COLOURS[verdict], text) if verdict in VERDICT_COLOURS else text

    def _summary(self, flow: flow_pb2.Flow) -> str:
        trace = f"IP Trace ID: {flow.ip_trace_id.trace_id}; " if flow.ip_trace_id.trace_id else ""
        auth = ""
        if flow.auth_type != flow_pb2.DISABLED:
            colour = "red" if flow.auth_type == flow_pb2.TEST_ALWAYS_FAIL else "green"
            auth = f"; Auth: {self._paint(colour, enum_name(flow_pb2.AuthType, flow.auth_type))}"
        return f"{trace}{flow.Summary}{auth}"


def enum_name(enum: Any, number: int) -> str:
    """The name of an enum value, or its number where it has none."""
    named = enum.DESCRIPTOR.values_by_number.get(number)
    return named.name if named else str(number)


def flow_type(flow: flow_pb2.Flow) -> str:
    """`http-request`, `to-endpoint`, `Policy denied`, `policy-verdict:L3-L4 INGRESS` ..."""
    if flow.HasField("l7"):
        kind = enum_name(flow_pb2.L7FlowType, flow.l7.type).lower()
        record = flow.l7.WhichOneof("record")
        return f"{record or 'l7'}-{kind}" + (f" {flow.l7.dns.observation_source}" if record == "dns" else "")
    event = flow.event_type
    sub_type = event.sub_type & 0xFF
    match event.type:
        case 1:
            return DROP_TEXTS.get(sub_type, f"{sub_type}, 0")
        case 3:
            return enum_name(flow_pb2.DebugCapturePoint, flow.debug_capture_point)
        case 4:
            return OBSERVATION_POINTS[sub_type] if sub_type < len(OBSERVATION_POINTS) else str(sub_type)
        case 5:
            number = flow.policy_match_type
            match_type = MATCH_TYPES[number] if number < len(MATCH_TYPES) else "unknown"
            return f"policy-verdict:{match_type} {enum_name(flow_pb2.TrafficDirection, flow.traffic_direction)}"
        case 7:
            point = flow.sock_xlate_point
            return TRANSLATION_POINTS.get(point) or enum_name(flow_pb2.SocketTranslationPoint, point)
    return "UNKNOWN"


def port_of(flow: flow_pb2.Flow, side: str) -> int:
    """The port of a side; 0 where the protocol has none."""
    protocol = flow.l4.WhichOneof("protocol")
    return int(getattr(getattr(flow.l4, protocol), f"{side}_port")) if protocol in ("TCP", "UDP", "SCTP") else 0


def policy_names(flow: flow_pb2.Flow, verdict: str) -> str:
    """` BY name (Kind), name2 (Kind2)`: the policies that made a policy verdict."""
    direction = {flow_pb2.INGRESS: "ingress", flow_pb2.EGRESS: "egress"}.get(flow.traffic_direction)
    if direction is None or verdict not in ("ALLOWED", "DENIED"):
        return ""
    policies = getattr(flow, f"{direction}_{verdict.lower()}_by")
    names = ", ".join(f"{policy.name} ({policy.kind})" for policy in policies if policy.name and policy.kind)
    return f" BY {names}" if names else ""


def cut_off(names: Iterable[str]) -> str:
    """Names joined by commas, at least one, then ` (and N more)` beyond about NAMES_LENGTH characters."""
    names = list(names)
    length, shown = 0, len(names)
    for at, name in enumerate(names):
        length += len(name.encode()) + 2
        if length > NAMES_LENGTH and at > 0:
            shown = at
            break
    left = f" (and {len(names) - shown} more)" if shown < len(names) else ""
    return ", ".join(names[:shown]) + left
