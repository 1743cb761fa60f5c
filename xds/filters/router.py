"""The router: forwards what the filters before it let pass, and logs the moment it does."""

from __future__ import annotations

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, LogTypeFilter
from envoy.data.accesslog.v3.accesslog_pb2 import AccessLogType
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter

from policies.ir import Slot
from xds.access_log import access_log
from xds.options import Options
from xds.resources import pack


def http_filter(_: Slot, options: Options) -> HttpFilter:
    """A flow must show a request when it arrives, not when an hour-long stream ends: hence the upstream log, written
    when the request gets its upstream stream (UpstreamPoolReady). Its second entry, at the end, says nothing new."""
    router = Router(suppress_envoy_headers=True)
    router.upstream_log_options.flush_upstream_log_on_upstream_stream = True
    only_ready = AccessLogFilter(log_type_filter=LogTypeFilter(types=[AccessLogType.UpstreamPoolReady]))
    router.upstream_log.append(access_log(options, only_ready))
    return HttpFilter(name="envoy.filters.http.router", typed_config=pack(router))
