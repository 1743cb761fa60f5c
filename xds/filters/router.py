"""The router: forwards what the filters before it let pass."""

from __future__ import annotations

from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter

from policies.ir import Slot
from xds.options import Options
from xds.resources import pack


def http_filter(_: Slot, __: Options) -> HttpFilter:
    """Without headers of its own."""
    return HttpFilter(name="envoy.filters.http.router", typed_config=pack(Router(suppress_envoy_headers=True)))
