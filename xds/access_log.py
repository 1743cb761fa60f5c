"""The access logger that every listener shares: one configuration, hence one gRPC stream per Envoy worker.

Pure. Envoy caches gRPC access loggers by their configuration, so the slot must not be in it: an entry names its slot
by the route's name (which both kinds of entry carry, tests hold Envoy to it), and where there is no route, because the
request was refused as malformed, by filter state.
"""

from __future__ import annotations

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog, AccessLogFilter
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.extensions.access_loggers.grpc.v3.als_pb2 import HttpGrpcAccessLogConfig

from xds import denial
from xds.options import Options
from xds.resources import pack

BUFFER_SIZE = 16 * 1024  # bytes of entries after which Envoy sends without waiting for the flush interval


def access_log(options: Options, only: AccessLogFilter | None = None) -> AccessLog:
    """A gRPC access log entry to the node's cluster of that name, of the entries that `only` selects."""
    config = HttpGrpcAccessLogConfig(additional_request_headers_to_log=denial.LOGGED_HEADERS)
    common = config.common_config
    common.log_name = denial.LOG_NAME
    common.transport_api_version = ApiVersion.V3
    common.grpc_service.envoy_grpc.cluster_name = options.access_log_cluster
    common.buffer_flush_interval.FromMilliseconds(options.log_flush_ms)
    common.buffer_size_bytes.value = BUFFER_SIZE
    common.filter_state_objects_to_log.append(denial.SLOT_FILTER_STATE)
    log = AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(config))
    if only is not None:
        log.filter.CopyFrom(only)
    return log
