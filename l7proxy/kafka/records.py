"""What was seen: what the proxy tells the outside. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from policies.types import Origin


class Reason(StrEnum):
    """Why a request was refused, or a connection closed: stable words for flows and metrics."""

    NO_CONFIGURATION = "no configuration yet"
    UNKNOWN_SLOT = "no rules for this proxy port"
    RETIRED = "rules have gone: connect again"
    TLS = "encrypted: nothing to judge by"
    MALFORMED = "malformed request"
    API_DENIED = "no rule allows the request"
    TOPIC_DENIED = "no rule allows the topic"
    TOPIC_UNKNOWN = "topic id is of no known topic"
    NOT_BY_TOPIC = "topics are not named one by one"
    API_UNKNOWN = "API or version is not known"
    OLD_SASL = "SASL without frames"
    TOO_LARGE = "request is too large to judge"
    ANSWER_TOO_LARGE = "answer is too large to judge"
    BAD_ANSWER = "malformed answer"
    OVERLOAD = "too many connections"
    UNREACHABLE = "server cannot be reached"


class Connection(NamedTuple):
    """Who is connected to whom, through which slot. A pod's address is `client` on egress, `server` on ingress."""

    slot: str
    proxy_port: int
    client: str
    client_port: int
    server: str
    server_port: int


class AccessRecord(NamedTuple):
    """One topic of a request; one without a topic if it names none. Refused where there is a reason.

    `api_key` is -1 of what could not be read as a request, and of connections. Responses have no records: they would
    say no more than a correlation id (facts, hubble.md 5.2).
    """

    connection: Connection
    api_key: int = -1
    api_version: int = 0
    correlation_id: int = 0
    client_id: str = ""
    topic: str = ""  # "" too of a topic id that nobody knows
    error_code: int = 0  # that the request was answered with; 0 too where it was not answered
    reason: Reason | None = None
    origins: tuple[Origin, ...] = ()  # whose rule allowed it; none of refusals, and of what needs no rule (SASL)

    @property
    def is_denial(self) -> bool:
        """Whether it was refused."""
        return self.reason is not None


class RecordSink(Protocol):
    """Takes access records. Must not block; what it cannot take it drops, and counts."""

    def seen(self, record: AccessRecord) -> None:
        """A topic of a request was judged, or a connection refused."""
