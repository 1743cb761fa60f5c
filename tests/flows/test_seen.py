"""What we read of Envoy's access log against Envoy's own description of it."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3.address_pb2 import Address
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogCommon
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from seen import seen_pb2

# A number or an enum below 128 is written alike, whatever its kind; a message is read as bytes or as our view of it.
VARINT = {FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_ENUM}
MESSAGE = {FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_BYTES}


def wire_kind(field: Any) -> str:
    return "number" if field.type in VARINT else "message" if field.type in MESSAGE else field.cpp_type


def compare(ours: Descriptor, theirs: Descriptor) -> set[str]:
    """Every field that we read has Envoy's number and a kind of the same bytes. Which messages were compared."""
    compared = {ours.name}
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.is_repeated) == (other.number, other.is_repeated), field.full_name
        assert wire_kind(field) == wire_kind(other), field.full_name
        if field.message_type and field.message_type.file is seen_pb2.DESCRIPTOR:
            compared |= compare(field.message_type, other.message_type)
    return compared


def test_every_field_has_envoys_number_and_kind() -> None:
    compared = compare(seen_pb2.Log.DESCRIPTOR, StreamAccessLogsMessage.DESCRIPTOR)
    for ours, map_field in ((seen_pb2.Header, "request_headers"), (seen_pb2.State, "filter_state_objects")):
        from_request = map_field == "request_headers"
        owner: Any = _request() if from_request else AccessLogCommon.DESCRIPTOR
        compared |= compare(ours.DESCRIPTOR, owner.fields_by_name[map_field].message_type)
    compared |= compare(seen_pb2.Address.DESCRIPTOR, Address.DESCRIPTOR)
    assert compared == set(seen_pb2.DESCRIPTOR.message_types_by_name)


def _request() -> Any:
    entries = StreamAccessLogsMessage.HTTPAccessLogEntries.DESCRIPTOR.fields_by_name["log_entry"].message_type
    return entries.fields_by_name["request"].message_type
