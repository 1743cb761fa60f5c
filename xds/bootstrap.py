"""Envoy's bootstrap: who it is, where its control plane is, and nothing that policy could change later.

Pure: returns text (JSON, which is YAML too); the agent writes the file.
"""

from __future__ import annotations

from typing import Literal

from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap, RuntimeLayer
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.config_source_pb2 import ApiConfigSource, ApiVersion
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.extensions.resource_monitors.downstream_connections.v3.downstream_connections_pb2 import (
    DownstreamConnectionsConfig,
)
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from google.protobuf import json_format

from xds.clusters import HTTP_OPTIONS
from xds.options import Options
from xds.resources import pack

ADS_CLUSTER = "ads"
NODE_CLUSTER = "deflector"

# A connection more than this is closed: far above what a node serves, below what file descriptors allow.
MAX_CONNECTIONS = 500_000
UNLIMITED_REGEX = 1_000_000_000  # instructions; RE2's own memory budget limits a regex, and xds.patterns checks it
CONNECT_TIMEOUT_S = 1
# How soon Envoy comes back to an agent that has been restarted: 100 ms at first, 1 s at most (default: 30 s).
RETRY_BASE_MS, RETRY_MAX_MS = 100, 1000

RUNTIME: dict[str, int | bool] = {
    "re2.max_program_size.error_level": UNLIMITED_REGEX,
    "re2.max_program_size.warn_level": UNLIMITED_REGEX,
    # `.` is any byte: what xds.patterns assumes, and no header can hide behind bytes that are not UTF-8.
    "envoy.reloadable_features.re2_use_latin1_mode": True,
    # A chunk ends where its length says, or the request is refused.
    "envoy.reloadable_features.strict_chunk_parsing": True,
    # Nothing that follows a handshake reaches the server before it has agreed (xds.routes relies on it).
    "envoy.reloadable_features.http_pause_generic_upgrade_request_body": True,
}


def bootstrap(
    node_id: str,
    xds_socket: str,
    admin_socket: str,
    *,
    protocol: Literal["delta", "sotw"] = "delta",
    access_log_cluster: str = Options().access_log_cluster,
) -> str:
    """The bootstrap as JSON. Both services, ADS and access log, are on `xds_socket` (a path)."""
    config = Bootstrap()
    config.node.id = node_id
    config.node.cluster = NODE_CLUSTER
    config.admin.address.pipe.path = admin_socket
    config.admin.address.pipe.mode = 0o600
    _dynamic(config, protocol)
    config.static_resources.clusters.extend(_pipe(name, xds_socket) for name in (ADS_CLUSTER, access_log_cluster))
    layer = RuntimeLayer(name="deflector")
    layer.static_layer.update(RUNTIME)
    config.layered_runtime.layers.append(layer)
    limit = DownstreamConnectionsConfig(max_active_downstream_connections=MAX_CONNECTIONS)
    config.overload_manager.resource_monitors.add(
        name="envoy.resource_monitors.global_downstream_max_connections", typed_config=pack(limit)
    )
    return json_format.MessageToJson(config, preserving_proto_field_name=True, indent=2)


def _dynamic(config: Bootstrap, protocol: str) -> None:
    ads = config.dynamic_resources.ads_config
    ads.api_type = ApiConfigSource.DELTA_GRPC if protocol == "delta" else ApiConfigSource.GRPC
    ads.transport_api_version = ApiVersion.V3
    ads.set_node_on_first_message_only = True
    ads.grpc_services.append(_service())
    for source in (config.dynamic_resources.cds_config, config.dynamic_resources.lds_config):
        source.ads.SetInParent()
        source.resource_api_version = ApiVersion.V3
        source.initial_fetch_timeout.FromSeconds(0)  # wait for ever: an Envoy without configuration serves nothing


def _service() -> GrpcService:
    service = GrpcService()
    service.envoy_grpc.cluster_name = ADS_CLUSTER
    backoff = service.envoy_grpc.retry_policy.retry_back_off
    backoff.base_interval.FromMilliseconds(RETRY_BASE_MS)
    backoff.max_interval.FromMilliseconds(RETRY_MAX_MS)
    return service


def _pipe(name: str, path: str) -> Cluster:
    cluster = Cluster(name=name, type=Cluster.STATIC)
    cluster.connect_timeout.FromSeconds(CONNECT_TIMEOUT_S)
    cluster.load_assignment.cluster_name = name
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add()
    endpoint.endpoint.address.pipe.path = path
    options = HttpProtocolOptions()
    options.explicit_http_config.http2_protocol_options.SetInParent()
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(options))
    return cluster
