"""Responses of GetAgentEvents -> text, line for line what `hubble observe agent-events` 1.19 prints. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flow import flow_pb2
from observer import observer_pb2

from flows.gotext import join_host_port
from flows.jsonpb import to_json
from flows.printer import SEPARATOR, Printer, enum_name

HEADINGS = ("TYPE", "DETAILS")


class EventPrinter(Printer):
    """Prints one stream of events. Raises PrinterError for a style that cannot be."""

    def event(self, response: observer_pb2.GetAgentEventsResponse) -> str:
        """What to write to standard output now; a table comes as a whole from `close`."""
        return self._count(self._event(response))

    def _event(self, response: observer_pb2.GetAgentEventsResponse) -> str:
        if self._output == "json":
            return to_json(response.agent_event if self._style.bare_json else response) + "\n"
        time = self._time(response.time if response.HasField("time") else None)
        node = (response.node_name,) if self._style.node_name else ()
        cells = (enum_name(flow_pb2.AgentEventType, response.agent_event.type), self._details(response.agent_event))
        if self._output == "compact":
            shown = f" [{response.node_name}]" if node else ""
            return f"{time}{shown}: {cells[0]} ({cells[1]})\n"
        if self._output == "dict":
            # Hubble ends the line of this separator only where it prints flows.
            lines = [f"{SEPARATOR if self._lines else ''}  TIMESTAMP: {time}"]
            lines += [f"       NODE: {name}" for name in node]
            lines += [f"{heading:>11}: {cell}" for heading, cell in zip(HEADINGS, cells, strict=True)]
            return "\n".join(lines) + "\n"
        heading = ("TIMESTAMP", *(["NODE"] if node else []), *HEADINGS)
        rows = ((time, *node, *cells),) if self._lines else (heading, (time, *node, *cells))
        return "".join("\t".join(row) + "\n" for row in rows)

    def _details(self, event: flow_pb2.AgentEvent) -> str:
        which = event.WhichOneof("notification")
        known = DETAILS.get(event.type)
        if which is None or known is None or known[0] != which:
            return "UNKNOWN"
        return known[1](self, getattr(event, which))


def _unknown(printer: EventPrinter, told: Any) -> str:
    return f"type: {told.type}, notification: {told.notification}"


def _start(printer: EventPrinter, told: Any) -> str:
    return f"start time: {printer._time(told.time if told.HasField('time') else None)}"


def _policy(printer: EventPrinter, told: Any) -> str:
    return f"labels: [{','.join(told.labels)}], revision: {told.revision}, count: {told.rule_count}"


def _regenerate(printer: EventPrinter, told: Any) -> str:
    return f"id: {told.id}, labels: [{','.join(told.labels)}]" + _given((", error: {}", told.error))


def _endpoint(printer: EventPrinter, told: Any) -> str:
    return f"id: {told.id}" + _given((", namespace: {}", told.namespace), (", pod name: {}", told.pod_name))


def _ipcache(printer: EventPrinter, told: Any) -> str:
    before = f", old identity: {told.old_identity.value}" if told.HasField("old_identity") else ""
    hosts = _given((", host ip: {}", told.host_ip), (", old host ip: {}", told.old_host_ip))
    return f"cidr: {told.cidr}, identity: {told.identity}{before}{hosts}, encrypt key: {told.encrypt_key}"


def _service(printer: EventPrinter, told: Any) -> str:
    frontend = f", frontend: {_address(told.frontend_address)}" if told.HasField("frontend_address") else ""
    backends = ",".join(map(_address, told.backend_addresses))
    return f"id: {told.id}{frontend}" + _given(
        (", backends: [{}]", backends),
        (", type: {}", told.type),
        (", traffic policy: {}", told.traffic_policy),
        (", namespace: {}", told.namespace),
        (", name: {}", told.name),
    )


def _service_deleted(printer: EventPrinter, told: Any) -> str:
    return f"id: {told.id}"


def _address(address: Any) -> str:
    return join_host_port(address.ip, str(address.port))


def _given(*parts: tuple[str, str]) -> str:
    return "".join(form.format(value) for form, value in parts if value)


Details = Callable[[EventPrinter, Any], str]
# type of event -> the notification that it should carry, and its words
DETAILS: dict[int, tuple[str, Details]] = {
    flow_pb2.AGENT_EVENT_UNKNOWN: ("unknown", _unknown),
    flow_pb2.AGENT_STARTED: ("agent_start", _start),
    flow_pb2.POLICY_UPDATED: ("policy_update", _policy),
    flow_pb2.POLICY_DELETED: ("policy_update", _policy),
    flow_pb2.ENDPOINT_REGENERATE_SUCCESS: ("endpoint_regenerate", _regenerate),
    flow_pb2.ENDPOINT_REGENERATE_FAILURE: ("endpoint_regenerate", _regenerate),
    flow_pb2.ENDPOINT_CREATED: ("endpoint_update", _endpoint),
    flow_pb2.ENDPOINT_DELETED: ("endpoint_update", _endpoint),
    flow_pb2.IPCACHE_UPSERTED: ("ipcache_update", _ipcache),
    flow_pb2.IPCACHE_DELETED: ("ipcache_update", _ipcache),
    flow_pb2.SERVICE_UPSERTED: ("service_upsert", _service),
    flow_pb2.SERVICE_DELETED: ("service_delete", _service_deleted),
}
