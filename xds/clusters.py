"""The upstream clusters: wherever the connection was going, and the same for WebSocket handshakes.

Pure.
"""

from __future__ import annotations

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import HeaderValueOption, RoutingPriority
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2 import UpstreamCodec
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from xds.codec import MAX_HEADERS, MAX_HEADERS_KB, keep_http1_form
from xds.resources import CLUSTER, Key, Resource, pack, resource

ORIGINAL_DESTINATION = "original-destination"
UPGRADE_DESTINATION = "original-destination:websocket"
UPGRADE = "upgrade"
WEBSOCKET_IN_TRANSIT = "deflector-websocket"  # what Envoy's router takes a handshake for (xds.routes)
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

CONNECT_TIMEOUT_S = 5
# Each client connection has upstream connections of its own: those of a shared pool outlive it, and one that a new
# policy resets would break the first request of a client who had nothing to do with it.
# One that is idle is closed before the server would: a server that closes at the moment of the next request turns it
# into a 503 that the client would not have seen without us. The shortest default among common servers is gunicorn's,
# 2 s. Opening another costs a handshake, mostly on the same node.
IDLE_TIMEOUT_MS = 1500
# Hosts of an ORIGINAL_DST cluster that were not used for this long are forgotten and their pools drained.
CLEANUP_INTERVAL_S = 60
# "No limit": breakers answer 503, which policy must not. What bounds connections is the bootstrap's overload manager.
UNBOUNDED = 1_000_000_000
# Peers that vanish without a FIN are found by TCP, as there are no idle timeouts: 5 min and 5 probes a minute apart.
KEEPALIVE_TIME_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 300, 60, 5


def original_destinations() -> tuple[Resource, ...]:
    """The cluster resources."""
    handshakes = _http_options()
    handshakes.http_filters.add(name="websocket", typed_config=pack(_restored_handshake()))
    handshakes.http_filters.add(name="envoy.filters.http.upstream_codec", typed_config=pack(UpstreamCodec()))
    return (_cluster(ORIGINAL_DESTINATION, _http_options()), _cluster(UPGRADE_DESTINATION, handshakes))


def _cluster(name: str, options: HttpProtocolOptions) -> Resource:
    """ORIGINAL_DST, told its destination by filter state (xds.listeners)."""
    cluster = Cluster(name=name, type=Cluster.ORIGINAL_DST, lb_policy=Cluster.CLUSTER_PROVIDED)
    cluster.connection_pool_per_downstream_connection = True
    cluster.connect_timeout.FromSeconds(CONNECT_TIMEOUT_S)
    cluster.cleanup_interval.FromSeconds(CLEANUP_INTERVAL_S)
    cluster.circuit_breakers.thresholds.extend(map(_no_limit, (RoutingPriority.DEFAULT, RoutingPriority.HIGH)))
    keepalive = cluster.upstream_connection_options.tcp_keepalive
    keepalive.keepalive_time.value = KEEPALIVE_TIME_S
    keepalive.keepalive_interval.value = KEEPALIVE_INTERVAL_S
    keepalive.keepalive_probes.value = KEEPALIVE_PROBES
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(options))
    return resource(CLUSTER, cluster)


def _restored_handshake() -> HeaderMutation:
    filter_ = HeaderMutation()
    restored = filter_.mutations.request_mutations.add().append
    restored.header.key, restored.header.value = UPGRADE, "websocket"
    restored.append_action = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS
    return filter_


def cluster_keys() -> tuple[Key, ...]:
    return Key(CLUSTER, ORIGINAL_DESTINATION), Key(CLUSTER, UPGRADE_DESTINATION)


def _no_limit(priority: RoutingPriority.ValueType) -> CircuitBreakers.Thresholds:
    thresholds = CircuitBreakers.Thresholds(priority=priority)
    for field in ("max_connections", "max_pending_requests", "max_requests", "max_retries", "max_connection_pools"):
        getattr(thresholds, field).value = UNBOUNDED
    return thresholds


def _http_options() -> HttpProtocolOptions:
    """The client's protocol on the other side too: HTTP/1 stays HTTP/1, h2c stays h2c."""
    options = HttpProtocolOptions()
    keep_http1_form(options.use_downstream_protocol_config.http_protocol_options)
    options.use_downstream_protocol_config.http2_protocol_options.allow_connect = True
    common = options.common_http_protocol_options
    common.idle_timeout.FromMilliseconds(IDLE_TIMEOUT_MS)
    common.max_headers_count.value = MAX_HEADERS
    common.max_response_headers_kb.value = MAX_HEADERS_KB
    return options
