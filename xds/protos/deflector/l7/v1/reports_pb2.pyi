from xds.protos.deflector.l7.v1 import filters_pb2 as _filters_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORWARDED: _ClassVar[Verdict]
    DROPPED: _ClassVar[Verdict]
    ERROR: _ClassVar[Verdict]
FORWARDED: Verdict
DROPPED: Verdict
ERROR: Verdict

class Batch(_message.Message):
    __slots__ = ("dns", "kafka", "learned", "counters", "proxy")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    DNS_FIELD_NUMBER: _ClassVar[int]
    KAFKA_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    PROXY_FIELD_NUMBER: _ClassVar[int]
    dns: Records
    kafka: Records
    learned: _containers.RepeatedCompositeFieldContainer[Learned]
    counters: _containers.ScalarMap[str, int]
    proxy: str
    def __init__(self, dns: _Optional[_Union[Records, _Mapping]] = ..., kafka: _Optional[_Union[Records, _Mapping]] = ..., learned: _Optional[_Iterable[_Union[Learned, _Mapping]]] = ..., counters: _Optional[_Mapping[str, int]] = ..., proxy: _Optional[str] = ...) -> None: ...

class Records(_message.Message):
    __slots__ = ("packed", "flows", "denials", "requests", "counts")
    PACKED_FIELD_NUMBER: _ClassVar[int]
    FLOWS_FIELD_NUMBER: _ClassVar[int]
    DENIALS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    packed: bytes
    flows: int
    denials: int
    requests: bytes
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, packed: _Optional[bytes] = ..., flows: _Optional[int] = ..., denials: _Optional[int] = ..., requests: _Optional[bytes] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class Answers(_message.Message):
    __slots__ = ("in_force", "cannot_be")
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    CANNOT_BE_FIELD_NUMBER: _ClassVar[int]
    in_force: _containers.RepeatedScalarFieldContainer[int]
    cannot_be: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, in_force: _Optional[_Iterable[int]] = ..., cannot_be: _Optional[_Iterable[int]] = ...) -> None: ...

class Learned(_message.Message):
    __slots__ = ("number", "pod", "name", "targets", "addresses", "ttl", "age_ms")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    number: int
    pod: str
    name: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    addresses: _containers.RepeatedScalarFieldContainer[bytes]
    ttl: int
    age_ms: int
    def __init__(self, number: _Optional[int] = ..., pod: _Optional[str] = ..., name: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., addresses: _Optional[_Iterable[bytes]] = ..., ttl: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class Rule(_message.Message):
    __slots__ = ("origins",)
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    origins: _containers.RepeatedCompositeFieldContainer[_filters_pb2.Origin]
    def __init__(self, origins: _Optional[_Iterable[_Union[_filters_pb2.Origin, _Mapping]]] = ...) -> None: ...

class DnsAccesses(_message.Message):
    __slots__ = ("slots", "rules", "accesses")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    ACCESSES_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[str]
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    accesses: _containers.RepeatedCompositeFieldContainer[DnsAccess]
    def __init__(self, slots: _Optional[_Iterable[str]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., accesses: _Optional[_Iterable[_Union[DnsAccess, _Mapping]]] = ...) -> None: ...

class DnsAccess(_message.Message):
    __slots__ = ("slot", "client", "client_port", "server", "server_port", "tcp", "query", "types", "verdict", "rule", "reason", "answer")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_PORT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    SERVER_PORT_FIELD_NUMBER: _ClassVar[int]
    TCP_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    slot: int
    client: str
    client_port: int
    server: str
    server_port: int
    tcp: bool
    query: str
    types: _containers.RepeatedScalarFieldContainer[int]
    verdict: Verdict
    rule: int
    reason: str
    answer: DnsAnswer
    def __init__(self, slot: _Optional[int] = ..., client: _Optional[str] = ..., client_port: _Optional[int] = ..., server: _Optional[str] = ..., server_port: _Optional[int] = ..., tcp: _Optional[bool] = ..., query: _Optional[str] = ..., types: _Optional[_Iterable[int]] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., rule: _Optional[int] = ..., reason: _Optional[str] = ..., answer: _Optional[_Union[DnsAnswer, _Mapping]] = ...) -> None: ...

class DnsAnswer(_message.Message):
    __slots__ = ("rcode", "addresses", "cnames", "ttl", "types")
    RCODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    CNAMES_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    rcode: int
    addresses: _containers.RepeatedScalarFieldContainer[bytes]
    cnames: _containers.RepeatedScalarFieldContainer[str]
    ttl: int
    types: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, rcode: _Optional[int] = ..., addresses: _Optional[_Iterable[bytes]] = ..., cnames: _Optional[_Iterable[str]] = ..., ttl: _Optional[int] = ..., types: _Optional[_Iterable[int]] = ...) -> None: ...

class KafkaAccesses(_message.Message):
    __slots__ = ("slots", "rules", "accesses")
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    ACCESSES_FIELD_NUMBER: _ClassVar[int]
    slots: _containers.RepeatedScalarFieldContainer[str]
    rules: _containers.RepeatedCompositeFieldContainer[Rule]
    accesses: _containers.RepeatedCompositeFieldContainer[KafkaAccess]
    def __init__(self, slots: _Optional[_Iterable[str]] = ..., rules: _Optional[_Iterable[_Union[Rule, _Mapping]]] = ..., accesses: _Optional[_Iterable[_Union[KafkaAccess, _Mapping]]] = ...) -> None: ...

class KafkaAccess(_message.Message):
    __slots__ = ("slot", "client", "client_port", "server", "server_port", "api_key", "api_version", "correlation_id", "topic", "error_code", "verdict", "rule", "reason", "client_id")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_PORT_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    SERVER_PORT_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    slot: int
    client: str
    client_port: int
    server: str
    server_port: int
    api_key: int
    api_version: int
    correlation_id: int
    topic: str
    error_code: int
    verdict: Verdict
    rule: int
    reason: str
    client_id: str
    def __init__(self, slot: _Optional[int] = ..., client: _Optional[str] = ..., client_port: _Optional[int] = ..., server: _Optional[str] = ..., server_port: _Optional[int] = ..., api_key: _Optional[int] = ..., api_version: _Optional[int] = ..., correlation_id: _Optional[int] = ..., topic: _Optional[str] = ..., error_code: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., rule: _Optional[int] = ..., reason: _Optional[str] = ..., client_id: _Optional[str] = ...) -> None: ...
