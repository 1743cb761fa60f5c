"""The access logger that every listener shares: one configuration, hence one gRPC stream per Envoy worker.

Pure. Envoy caches gRPC access loggers by their configuration, so the slot must not be in it: an entry names its slot
by the route's name, and where there is no route, because the request was refused as malformed, by filter state.

An exchange is logged when it ends. One that takes longer is also logged while it lasts, so that a flow shows a request
when it arrives and not when an hour-long stream ends: at the first ticks of a timer, after which the entry is filtered
out (docs/decisions/0003).
"""

from __future__ import annotations

from envoy.config.accesslog.v3.accesslog_pb2 import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    DurationFilter,
    LogTypeFilter,
    OrFilter,
)
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType
from envoy.extensions.access_loggers.grpc.v3.als_pb2 import HttpGrpcAccessLogConfig

from xds import denial
from xds.options import Options
from xds.resources import pack

BUFFER_SIZE = 64 * 1024  # bytes of entries after which Envoy sends without waiting for the flush interval
# A request that is still open is told of at this tick; with the flush interval it stays within the 250 ms that a
# follower is promised. Three more ticks are let through, for a worker that was late; readers know them for repeats.
OPEN_TICK_MS = 150
OPEN_UNTIL_MS = 4 * OPEN_TICK_MS + OPEN_TICK_MS // 2
# Filters by number must name a runtime key that could override them; nobody sets this one.
_NO_RUNTIME_KEY = "deflector.unset"


def access_log(options: Options) -> AccessLog:
    """The gRPC access log of a connection manager, to the node's cluster of that name."""
    config = HttpGrpcAccessLogConfig(additional_request_headers_to_log=denial.LOGGED_HEADERS)
    common = config.common_config
    common.log_name = denial.LOG_NAME
    common.transport_api_version = ApiVersion.V3
    common.grpc_service.envoy_grpc.cluster_name = options.access_log_cluster
    common.buffer_flush_interval.FromMilliseconds(options.log_flush_ms)
    common.buffer_size_bytes.value = BUFFER_SIZE
    common.filter_state_objects_to_log.append(denial.SLOT_FILTER_STATE)
    log = AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(config))
    ended, still_young = _of_type(AccessLogType.DownstreamEnd), AndFilter()
    still_young.filters.extend([_of_type(AccessLogType.DownstreamPeriodic), _younger_than(OPEN_UNTIL_MS)])
    log.filter.or_filter.CopyFrom(OrFilter(filters=[ended, AccessLogFilter(and_filter=still_young)]))
    return log


def _of_type(kind: AccessLogType.ValueType) -> AccessLogFilter:
    return AccessLogFilter(log_type_filter=LogTypeFilter(types=[kind]))


def _younger_than(milliseconds: int) -> AccessLogFilter:
    comparison = ComparisonFilter(op=ComparisonFilter.LE)
    comparison.value.default_value = milliseconds
    comparison.value.runtime_key = _NO_RUNTIME_KEY
    return AccessLogFilter(duration_filter=DurationFilter(comparison=comparison))
