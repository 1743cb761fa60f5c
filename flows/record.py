"""What was seen, as values: one entry of a proxy's access log, one packet event of the kernel.

Records carry what the observer of the event knew (addresses, verdict) and nothing that has to be looked up. Whoever
owns the source of an event converts it to a record; flows.build turns records into Flow messages.
Imports the standard library and policies.types only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from policies.types import Direction, Origin, Protocol

Headers = tuple[tuple[str, str], ...]  # canonical MIME case, sorted by key


class SlotRef(NamedTuple):
    """What the name of a slot says: `ingress:4711:tcp:80` is the ingress policy of group (identity) 4711."""

    name: str
    direction: Direction
    group: int


class HttpExchange(NamedTuple):
    """Which exchange an access-log entry is about. Two of one connection with the same request that began in the same
    nanosecond are interchangeable.

    `client` is who connected, `server` the address it connected to; ports are in 1..65535, addresses canonical text.
    """

    client_ip: str
    client_port: int
    server_ip: str
    server_port: int
    method: str
    authority: str
    path: str  # as sent: with the query string
    started: bytes = b""  # when the request's first byte came, as the log writes it: to be compared only


class HttpRecord(NamedTuple):
    """One HTTP access-log entry: the request was allowed and is open (`ended` is False), or the exchange is over.

    A NamedTuple and not a frozen dataclass because one is made per entry and costs a fifth (0.5 us against 2.6 us).
    """

    exchange: HttpExchange
    slot: SlotRef
    ended: bool
    url: str  # scheme://authority/path?query
    protocol: str  # "HTTP/1", "HTTP/1.1", "HTTP/2" or "Unknown"
    request_headers: Headers = ()
    trace_id: str = ""  # 32 hexadecimal digits of the request's traceparent
    # The rest is known when the exchange has ended.
    code: int = 0  # 0: it ended without a response
    denied_by: str | None = None  # the rule, or Envoy's reason for refusing what is malformed; None: not denied
    latency_ns: int = 0  # request received -> first byte of the response sent
    response_headers: Headers = ()
    allowed_by: str = ""  # the rule, by the name that the proxy has for it; "": not known, or denied
    # What header actions found wanting: a header and the value that it should have had; or had, and should not.
    missing_headers: Headers = ()
    rejected_headers: Headers = ()


class HttpNews(NamedTuple):
    """What a record newly tells: its request, its response, or both; each becomes one flow.

    A request that was denied is dropped; a response is always forwarded, even the 403.
    """

    record: HttpRecord
    has_request: bool
    has_response: bool


class ParserVerdict(Enum):
    """What a protocol parser of ours made of a message."""

    FORWARDED = "forwarded"
    DROPPED = "dropped"
    ERROR = "error"


class Judgement(NamedTuple):
    """Why a message passed or did not, as the proxy tells that judged it; of an answer, why its request passed.

    `rules`: what let it pass, where a rule did. `reason`: why it did not, where no rule is to blame (malformed, too
    many at once, no answer); "" of what no rule allows.
    """

    rules: tuple[Origin, ...] = ()
    reason: str = ""


class Leg(NamedTuple):
    """One connection as a parser of ours sees it: client and server by address (canonical text) and port, the transport
    (Protocol.TCP or Protocol.UDP), and the slot whose rules were asked."""

    slot: SlotRef
    client_ip: str
    client_port: int
    server_ip: str
    server_port: int
    transport: Protocol = Protocol.TCP


class TlsRefusal(NamedTuple):
    """A connection that the proxy closed because of the server that its ClientHello names; it had reached nobody.

    `server_name` is as Envoy has it (lower case); "" where there was none, or no TLS. `denied_by`: by what.
    """

    leg: Leg
    server_name: str
    denied_by: str


class DnsAnswer(NamedTuple):
    """What an answer tells. `ttl` is the lowest of its records, in seconds; 4294967295 if it has none."""

    rcode: int = 0
    addresses: tuple[str, ...] = ()
    cnames: tuple[str, ...] = ()  # with the trailing dot, in order
    ttl: int = 4294967295
    types: tuple[str, ...] = ()  # of its records, as they come: CNAME, A


class DnsRecord(NamedTuple):
    """One DNS message: a query, or if `answer` is there, the response to it. A denied query is told once, as DROPPED;
    the REFUSED that answers it and what timed out are not told at all."""

    leg: Leg
    query: str  # lower case, with the trailing dot
    types: tuple[str, ...]  # A, AAAA, PTR ...; "Unknown" for those without a name
    answer: DnsAnswer | None = None
    verdict: ParserVerdict = ParserVerdict.FORWARDED
    source: str = "proxy"  # who observed it
    judgement: Judgement = Judgement()

    @property
    def is_request(self) -> bool:
        """Whether it asks."""
        return self.answer is None

    @property
    def is_denial(self) -> bool:
        """Whether policy refused it."""
        return self.verdict is ParserVerdict.DROPPED


class KafkaRecord(NamedTuple):
    """One Kafka request, or the response to one. It becomes a flow for each of its topics, or one without a topic."""

    leg: Leg
    api_key: str  # produce, fetch ...; "" of what could not be parsed, and of responses
    api_version: int = 0
    correlation_id: int = 0
    topics: tuple[str, ...] = ()
    is_response: bool = False
    error_code: int = 0  # told of responses only
    verdict: ParserVerdict = ParserVerdict.FORWARDED
    judgement: Judgement = Judgement()
    client_id: str = ""  # not shown: rules may ask for it

    @property
    def is_request(self) -> bool:
        """Whether it asks."""
        return not self.is_response

    @property
    def is_denial(self) -> bool:
        """Whether policy refused it."""
        return self.verdict is ParserVerdict.DROPPED


class PacketKind(Enum):
    """Which of the kernel's events a PacketRecord is."""

    DROP = "drop"
    TRACE = "trace"
    POLICY_VERDICT = "policy-verdict"


class PacketVerdict(Enum):
    """What became of the packet; REDIRECTED: handed to a proxy port."""

    FORWARDED = "forwarded"
    DROPPED = "dropped"
    REDIRECTED = "redirected"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class PacketRecord:
    """One event of the kernel about one packet, from source to destination as the packet was going.

    Fields that make no sense for a kind keep their default. Ports are 0 for protocols without ports.
    """

    kind: PacketKind
    source_ip: str
    destination_ip: str
    protocol: int = Protocol.TCP
    source_port: int = 0
    destination_port: int = 0
    verdict: PacketVerdict = PacketVerdict.FORWARDED
    direction: Direction | None = None  # as the endpoint whose policy was asked sees it; None: not known
    source_identity: int | None = None  # None: look it up by address
    destination_identity: int | None = None
    tcp_flags: int = 0  # as on the wire: FIN 0x1 SYN 0x2 RST 0x4 PSH 0x8 ACK 0x10 URG 0x20 ECE 0x40 CWR 0x80 NS 0x100
    icmp_type: int = 0
    icmp_code: int = 0
    drop_reason: int = 0  # flow.DropReason: 133 no rule allows it, 181 a rule denies it
    match_type: int = 0  # 0 none, 1 L3-Only, 2 L3-L4, 3 L4-Only, 4 all, 5 L3-Proto, 6 Proto-Only
    observation_point: int = 0  # the datapath's number: 0 to-endpoint, 1 to-proxy, 5 from-endpoint ...
    trace_reason: int = 0  # flow.TraceReason: 1 new, 2 established, 3 reply, 4 related
    proxy_port: int = 0
    interface_index: int = 0
    interface_name: str = ""
    source_mac: str = ""
    destination_mac: str = ""

    @property
    def is_denial(self) -> bool:
        """Whether the packet was dropped."""
        return self.verdict is PacketVerdict.DROPPED


Parsed = DnsRecord | KafkaRecord
Seen = PacketRecord | Parsed  # what comes as a record, and not in an access log
