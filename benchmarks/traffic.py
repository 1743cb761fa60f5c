"""Access-log messages as Deflector's Envoy sends them: what the flow pipeline is fed with. Pure; chance is an argument.

One entry per exchange, two for one that lasts (docs/decisions/0003), interleaved as concurrent connections have it.
Their fields are those that Envoy 1.40 was seen to send for the listeners of xds/.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from envoy.config.core.v3.address_pb2 import Address
from envoy.config.core.v3.base_pb2 import RequestMethod
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType, HTTPAccessLogEntry
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from google.protobuf.wrappers_pb2 import StringValue

BATCH = 100  # entries per message
CLIENTS = tuple(f"10.244.0.{host}" for host in range(20, 120))
SERVERS = tuple((f"10.244.1.{host}", f"shop-{host}.default.svc.cluster.local") for host in range(10, 18))
SLOT = "ingress:4711:tcp:8080"
PORT = 8080
OPEN = 64  # long exchanges between their two entries at any time
METHODS = ("GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE")
RESOURCES = ("orders", "carts", "users", "items", "reviews")
AGENTS = (
    "curl/7.88.1",
    "Go-http-client/1.1",
    "python-requests/2.31.0",
    "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0",
)
CODES = (200, 200, 200, 200, 200, 200, 201, 204, 304, 404, 500)
DENIALS = 0.1  # share of exchanges
LONG = 0.05  # share of exchanges that are still open when Envoy's timer ticks


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the entries of an exchange say alike."""

    started_ns: int
    client: tuple[str, int]
    server: tuple[str, str]
    method: str
    path: str
    agent: str


def messages(chance: random.Random, count: int, denials: float = DENIALS) -> list[bytes]:
    """`count` serialized messages of BATCH entries each; `denials` is the share of exchanges that are denied."""
    entries = _entries(chance, denials)
    return [_message(next(entries) for _ in range(BATCH)) for _ in range(count)]


def _message(entries: Iterator[HTTPAccessLogEntry]) -> bytes:
    message = StreamAccessLogsMessage()
    message.http_logs.log_entry.extend(entries)
    wire: bytes = message.SerializeToString()
    return wire


def _entries(chance: random.Random, denials: float) -> Iterator[HTTPAccessLogEntry]:
    """Entries without end: exchanges end, some of them are denied, and some were told of while they were open."""
    open_exchanges: list[Exchange] = []
    for number in itertools.count():
        exchange = _exchange(chance, number)
        if chance.random() < LONG:
            yield _told(exchange, AccessLogType.DownstreamPeriodic)
            open_exchanges.append(exchange)
        else:
            yield _ended(exchange, chance, denied=chance.random() < denials)
        if len(open_exchanges) > OPEN:
            yield _ended(open_exchanges.pop(chance.randrange(OPEN)), chance, denied=False)


def _exchange(chance: random.Random, number: int) -> Exchange:
    resource = chance.choice(RESOURCES)
    return Exchange(
        started_ns=1_700_000_000_000_000_000 + number * 37_000,
        client=(chance.choice(CLIENTS), chance.randrange(32768, 61000)),
        server=chance.choice(SERVERS),
        method=chance.choice(METHODS),
        path=f"/api/v1/{resource}/{chance.randrange(5000)}?fields=name,price",
        agent=chance.choice(AGENTS),
    )


def _ended(exchange: Exchange, chance: random.Random, *, denied: bool) -> HTTPAccessLogEntry:
    entry = _told(exchange, AccessLogType.DownstreamEnd, denied=denied)
    common, response = entry.common_properties, entry.response
    offsets = [common.time_to_last_rx_byte, common.duration]
    offsets += [common.time_to_first_downstream_tx_byte, common.time_to_last_downstream_tx_byte]
    if not denied:
        offsets += [common.time_to_first_upstream_rx_byte, common.time_to_last_upstream_rx_byte]
        common.upstream_wire_bytes_received, response.upstream_header_bytes_received = 1010, 150
    for offset in offsets:
        offset.FromNanoseconds(chance.randrange(200_000, 30_000_000))
    common.downstream_wire_bytes_sent = 1010
    response.response_code.value = 403 if denied else chance.choice(CODES)
    response.response_code_details = "rbac_access_denied_matched_policy[deny]" if denied else "via_upstream"
    response.response_headers_bytes, response.response_body_bytes = 180, 15 if denied else 830
    response.downstream_header_bytes_sent = 180
    return entry


def _told(exchange: Exchange, stage: AccessLogType, *, denied: bool = False) -> HTTPAccessLogEntry:
    """What is known as soon as the request has been judged, and forwarded if it was allowed."""
    entry = HTTPAccessLogEntry(protocol_version=HTTPAccessLogEntry.HTTP11)
    common, request = entry.common_properties, entry.request
    common.access_log_type = stage
    _fill(common.downstream_remote_address, exchange.client)
    _fill(common.downstream_direct_remote_address, exchange.client)
    _fill(common.downstream_local_address, (exchange.server[0], PORT))
    common.start_time.FromNanoseconds(exchange.started_ns)
    common.route_name = SLOT
    common.filter_state_objects["deflector.slot"].Pack(StringValue(value=SLOT))
    common.downstream_wire_bytes_received = 260
    verdict = common.metadata.filter_metadata["envoy.filters.http.rbac"]
    verdict["enforced_engine_result"] = "denied" if denied else "allowed"
    verdict["enforced_effective_policy_id"] = "deny" if denied else "rule:a3f3de1c2786"
    if not denied:
        _forwarded(entry, exchange)
    request.request_method = RequestMethod.Value(exchange.method)
    request.scheme, request.authority, request.path = "http", exchange.server[1], exchange.path
    request.request_headers_bytes = 230
    request.downstream_header_bytes_received = 220
    request.user_agent = exchange.agent
    request.request_headers[":method"] = exchange.method
    return entry


def _forwarded(entry: HTTPAccessLogEntry, exchange: Exchange) -> None:
    common = entry.common_properties
    common.upstream_cluster = "original-destination"
    _fill(common.upstream_remote_address, (exchange.server[0], PORT))
    _fill(common.upstream_local_address, exchange.client)
    common.time_to_first_upstream_tx_byte.FromNanoseconds(104_000)
    common.time_to_last_upstream_tx_byte.FromNanoseconds(104_200)
    common.upstream_request_attempt_count = 1
    common.upstream_wire_bytes_sent, entry.request.upstream_header_bytes_sent = 290, 250


def _fill(address: Address, where: tuple[str, int]) -> None:
    address.socket_address.address, address.socket_address.port_value = where
