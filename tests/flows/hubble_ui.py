"""As Hubble UI's page speaks with its backend: protobuf messages by POST, asked for again and again on one channel.

Only the fields that the tests look at are declared, by number; the numbers are those of the backend's wire format.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import Any, Final

from flow import flow_pb2  # noqa: F401 - puts flow.Flow into the pool of descriptors
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from observer import observer_pb2  # noqa: F401 - and observer's messages

SERVICE, LINK, FLOWS = 3, 4, 5  # kinds of events that a page asks for

# message -> field -> (number, type, is repeated); a type is a scalar, or the full name of a message
_SCALARS: Final = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
}
_MESSAGES: Final[dict[str, dict[str, tuple[int, str, bool]]]] = {
    "Message": {"meta": (1, "page.Meta", False), "body": (2, "page.Body", False)},
    "Meta": {
        "channel_id": (2, "string", False),
        "route_name": (3, "string", False),
        "is_terminated": (4, "bool", False),
        "is_not_ready": (5, "bool", False),
        "is_error": (6, "bool", False),
        "errors": (7, "page.Error", True),
    },
    "Error": {"code": (2, "uint32", False), "message": (3, "string", False)},
    "Body": {"content": (1, "bytes", False)},
    "EventFilter": {"flow_filter": (2, "flow.FlowFilter", False)},
    "GetEventsRequest": {
        "event_types": (1, "uint32", True),
        "blacklist": (2, "page.EventFilter", True),
        "whitelist": (3, "page.EventFilter", True),
    },
    "GetEventsResponse": {"events": (3, "page.Event", True)},
    "Event": {
        "service_state": (5, "page.ServiceState", False),
        "service_link_state": (6, "page.ServiceLinkState", False),
        "flows": (7, "page.Flows", False),
        "notification": (8, "page.Notification", False),
    },
    "Flows": {"flows": (1, "flow.Flow", True)},
    "ServiceState": {"service": (1, "page.Service", False)},
    "Service": {"id": (1, "string", False), "name": (2, "string", False), "namespace": (3, "string", False)},
    "ServiceLinkState": {"service_link": (1, "page.ServiceLink", False)},
    "ServiceLink": {
        "source_id": (2, "string", False),
        "destination_id": (3, "string", False),
        "destination_port": (4, "uint32", False),
        "verdict": (6, "uint32", False),
    },
    "GetControlStreamResponse": {
        "namespaces": (1, "page.NamespaceStates", False),
        "notification": (2, "page.Notification", False),
    },
    "NamespaceStates": {"namespaces": (1, "page.NamespaceState", True)},
    "NamespaceState": {"namespace": (1, "page.NamespaceDescriptor", False)},
    "NamespaceDescriptor": {"name": (2, "string", False)},
    "Notification": {"status": (3, "page.Status", False), "no_permission": (4, "page.Error", False)},
    "Status": {
        "nodes": (1, "observer.GetNodesResponse", False),
        "server_status": (2, "observer.ServerStatusResponse", False),
    },
}


def _declared() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="page.proto", package="page", syntax="proto3", dependency=["flow/flow.proto", "observer/observer.proto"]
    )
    for message, fields in _MESSAGES.items():
        made = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = made.field.add(name=name, number=number, label=3 if repeated else 1)
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{kind}"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"page.{name}")) for name in _MESSAGES}


page = _declared()


class Page:
    """One stream of a page: `control-stream` or `service-map-stream`."""

    def __init__(self, port: int, route: str, first: bytes = b"") -> None:
        self._port, self._route, self._first = port, route, first
        self._channel = f"{route}-{time.monotonic_ns()}"

    def bodies(self, seconds: float) -> Iterator[bytes]:
        """What the backend sends, for no longer than this. An error of the backend fails the test."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = self._ask()
            assert not answer.meta.is_error, answer
            if answer.body.content:
                yield answer.body.content
            if answer.meta.is_terminated:
                return
            time.sleep(0.05)

    def _ask(self) -> Any:
        said = page["Message"]()
        said.meta.channel_id, said.meta.route_name = self._channel, self._route
        said.body.content, self._first = self._first, b""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("POST", f"/api/{self._route}", said.SerializeToString())
            response = connection.getresponse()
            return page["Message"].FromString(response.read())
        finally:
            connection.close()
