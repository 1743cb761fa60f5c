"""The access loggers that every listener shares: one configuration each, hence one gRPC stream per Envoy worker.

Pure. Envoy caches gRPC access loggers by their configuration, so the slot must not be in it: an entry names its slot
by the route's name, and where there is no route, because the request was refused as malformed, by filter state.

Entries are what a request costs us most beside the proxy itself, so there are two forms. The short one is for requests
that the filter has judged and that were routed: nearly all. The full one, on a stream of its own, is for the rest: it
bears the filter state, and the method as text, where an entry has no number for it. The choice depends on nothing that
changes once a request has been judged, so the entries of one exchange stay in order.

An exchange is logged when it ends. One that takes longer is also logged while it lasts, so that a flow shows a request
when it arrives and not when an hour-long stream ends: at the first ticks of a timer, after which the entry is filtered
out (docs/decisions/0003).
"""

from __future__ import annotations

from functools import lru_cache

from envoy.config.accesslog.v3.accesslog_pb2 import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    DurationFilter,
    HeaderFilter,
    LogTypeFilter,
    MetadataFilter,
    OrFilter,
)
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.route.v3.route_components_pb2 import HeaderMatcher
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType
from envoy.extensions.access_loggers.grpc.v3.als_pb2 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
    TcpGrpcAccessLogConfig,
)
from envoy.type.matcher.v3.metadata_pb2 import MetadataMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher

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
# Methods that an entry has a number for, the frequent ones first. Not CONNECT: it is judged, but has no route.
NUMBERED_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE")


def access_logs(options: Options) -> tuple[AccessLog, ...]:
    """The access logs of a connection manager, to the node's cluster of that name. An entry goes to one of them.

    To be copied and not changed: made once for all slots.
    """
    return _access_logs(options.access_log_cluster, options.log_flush_ms)


@lru_cache(maxsize=4)
def _access_logs(cluster: str, flush_ms: int) -> tuple[AccessLog, ...]:
    short, full = _config(cluster, flush_ms), _config(cluster, flush_ms)
    short.additional_request_headers_to_log.extend(denial.LOGGED_HEADERS)
    full.additional_request_headers_to_log.extend(denial.FULLY_LOGGED_HEADERS)
    full.common_config.filter_state_objects_to_log.append(denial.SLOT_FILTER_STATE)
    usual = _all(_any(*map(_is_method, NUMBERED_METHODS)), _is_judged())
    unusual = _any(_is_not_judged(), _all(*map(_is_not_method, NUMBERED_METHODS)))
    return _log(short, usual), _log(full, unusual)


def refusal_log(options: Options) -> AccessLog:
    """The access log of TLS connections that are refused; each is told once, when it is closed."""
    config = TcpGrpcAccessLogConfig()
    _fill(config.common_config, options.access_log_cluster, options.log_flush_ms)
    config.common_config.filter_state_objects_to_log.extend(
        (denial.SLOT_FILTER_STATE, denial.REFUSED_FILTER_STATE, denial.SERVER_NAME_FILTER_STATE)
    )
    return AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=pack(config))


def _config(cluster: str, flush_ms: int) -> HttpGrpcAccessLogConfig:
    config = HttpGrpcAccessLogConfig()
    _fill(config.common_config, cluster, flush_ms)
    return config


def _fill(common: CommonGrpcAccessLogConfig, cluster: str, flush_ms: int) -> None:
    common.log_name = denial.LOG_NAME
    common.transport_api_version = ApiVersion.V3
    common.grpc_service.envoy_grpc.cluster_name = cluster
    common.buffer_flush_interval.FromMilliseconds(flush_ms)
    common.buffer_size_bytes.value = BUFFER_SIZE


def _log(config: HttpGrpcAccessLogConfig, concerned: AccessLogFilter) -> AccessLog:
    """What it is concerned with, when an exchange ends and while it is young."""
    still_young = _all(_is_of_type(AccessLogType.DownstreamPeriodic), _is_younger_than(OPEN_UNTIL_MS))
    told = _any(_is_of_type(AccessLogType.DownstreamEnd), still_young)
    log = AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(config))
    log.filter.CopyFrom(_all(concerned, told))
    return log


def _all(*filters: AccessLogFilter) -> AccessLogFilter:
    return AccessLogFilter(and_filter=AndFilter(filters=filters))


def _any(*filters: AccessLogFilter) -> AccessLogFilter:
    return AccessLogFilter(or_filter=OrFilter(filters=filters))


def _is_of_type(kind: AccessLogType.ValueType) -> AccessLogFilter:
    return AccessLogFilter(log_type_filter=LogTypeFilter(types=[kind]))


def _is_younger_than(milliseconds: int) -> AccessLogFilter:
    comparison = ComparisonFilter(op=ComparisonFilter.LE)
    comparison.value.default_value = milliseconds
    comparison.value.runtime_key = _NO_RUNTIME_KEY
    return AccessLogFilter(duration_filter=DurationFilter(comparison=comparison))


def _is_method(method: str) -> AccessLogFilter:
    return AccessLogFilter(header_filter=HeaderFilter(header=_method(method)))


def _is_not_method(method: str) -> AccessLogFilter:
    inverted = _method(method)
    inverted.invert_match = True
    return AccessLogFilter(header_filter=HeaderFilter(header=inverted))


def _method(method: str) -> HeaderMatcher:
    return HeaderMatcher(name=":method", string_match=StringMatcher(exact=method))


def _is_judged() -> AccessLogFilter:
    """Whether the RBAC filter has left its result."""
    result = _rbac_result()
    result.value.present_match = True
    return _metadata(result, otherwise=False)


def _is_not_judged() -> AccessLogFilter:
    """The opposite: a result is never null, and where there is none the filter lets the entry pass."""
    result = _rbac_result()
    result.value.null_match.SetInParent()
    return _metadata(result, otherwise=True)


def _rbac_result() -> MetadataMatcher:
    return MetadataMatcher(filter=denial.METADATA_NAMESPACE, path=[{"key": denial.METADATA_RESULT}])


def _metadata(matcher: MetadataMatcher, *, otherwise: bool) -> AccessLogFilter:
    """`otherwise`: what holds where the metadata has no such key."""
    found = MetadataFilter(matcher=matcher, match_if_key_not_found={"value": otherwise})
    return AccessLogFilter(metadata_filter=found)
