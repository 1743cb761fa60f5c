from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVE: _ClassVar[State]
    RETIRED: _ClassVar[State]
    DRAINED: _ClassVar[State]
ACTIVE: State
RETIRED: State
DRAINED: State

class Origin(_message.Message):
    __slots__ = ("kind", "namespace", "name", "path")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    path: str
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("group", "first_port", "last_port", "state", "wildcard")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    FIRST_PORT_FIELD_NUMBER: _ClassVar[int]
    LAST_PORT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WILDCARD_FIELD_NUMBER: _ClassVar[int]
    group: int
    first_port: int
    last_port: int
    state: State
    wildcard: _containers.RepeatedCompositeFieldContainer[Origin]
    def __init__(self, group: _Optional[int] = ..., first_port: _Optional[int] = ..., last_port: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., wildcard: _Optional[_Iterable[_Union[Origin, _Mapping]]] = ...) -> None: ...

class DnsFilter(_message.Message):
    __slots__ = ("slot", "rules")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    slot: Slot
    rules: _containers.RepeatedCompositeFieldContainer[DnsRule]
    def __init__(self, slot: _Optional[_Union[Slot, _Mapping]] = ..., rules: _Optional[_Iterable[_Union[DnsRule, _Mapping]]] = ...) -> None: ...

class DnsRule(_message.Message):
    __slots__ = ("name", "pattern", "origins")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    name: str
    pattern: str
    origins: _containers.RepeatedCompositeFieldContainer[Origin]
    def __init__(self, name: _Optional[str] = ..., pattern: _Optional[str] = ..., origins: _Optional[_Iterable[_Union[Origin, _Mapping]]] = ...) -> None: ...

class KafkaFilter(_message.Message):
    __slots__ = ("slot", "rules")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    slot: Slot
    rules: _containers.RepeatedCompositeFieldContainer[KafkaRule]
    def __init__(self, slot: _Optional[_Union[Slot, _Mapping]] = ..., rules: _Optional[_Iterable[_Union[KafkaRule, _Mapping]]] = ...) -> None: ...

class KafkaRule(_message.Message):
    __slots__ = ("api_keys", "api_version", "client_id", "topic", "origins")
    API_KEYS_FIELD_NUMBER: _ClassVar[int]
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    api_keys: _containers.RepeatedScalarFieldContainer[int]
    api_version: int
    client_id: str
    topic: str
    origins: _containers.RepeatedCompositeFieldContainer[Origin]
    def __init__(self, api_keys: _Optional[_Iterable[int]] = ..., api_version: _Optional[int] = ..., client_id: _Optional[str] = ..., topic: _Optional[str] = ..., origins: _Optional[_Iterable[_Union[Origin, _Mapping]]] = ...) -> None: ...

class DnsOptions(_message.Message):
    __slots__ = ("name", "rejection", "query_timeout_ms", "hold_limit_ms", "release_late", "targets", "selectors", "by_endpoint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    QUERY_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    HOLD_LIMIT_MS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LATE_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    SELECTORS_FIELD_NUMBER: _ClassVar[int]
    BY_ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    rejection: str
    query_timeout_ms: int
    hold_limit_ms: int
    release_late: bool
    targets: bool
    selectors: _containers.RepeatedCompositeFieldContainer[FqdnSelector]
    by_endpoint: bool
    def __init__(self, name: _Optional[str] = ..., rejection: _Optional[str] = ..., query_timeout_ms: _Optional[int] = ..., hold_limit_ms: _Optional[int] = ..., release_late: _Optional[bool] = ..., targets: _Optional[bool] = ..., selectors: _Optional[_Iterable[_Union[FqdnSelector, _Mapping]]] = ..., by_endpoint: _Optional[bool] = ...) -> None: ...

class KafkaOptions(_message.Message):
    __slots__ = ("name", "show_topics")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHOW_TOPICS_FIELD_NUMBER: _ClassVar[int]
    name: str
    show_topics: bool
    def __init__(self, name: _Optional[str] = ..., show_topics: _Optional[bool] = ...) -> None: ...

class FqdnSelector(_message.Message):
    __slots__ = ("name", "pattern")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    name: str
    pattern: str
    def __init__(self, name: _Optional[str] = ..., pattern: _Optional[str] = ...) -> None: ...

class LastTold(_message.Message):
    __slots__ = ("listeners", "dns_options", "kafka_options")
    LISTENERS_FIELD_NUMBER: _ClassVar[int]
    DNS_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    KAFKA_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    listeners: _containers.RepeatedScalarFieldContainer[bytes]
    dns_options: bytes
    kafka_options: bytes
    def __init__(self, listeners: _Optional[_Iterable[bytes]] = ..., dns_options: _Optional[bytes] = ..., kafka_options: _Optional[bytes] = ...) -> None: ...
