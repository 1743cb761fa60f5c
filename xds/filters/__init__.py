"""The HTTP filters of a slot, one file each, and their order."""

from __future__ import annotations

from collections.abc import Callable

from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter

from policies.ir import Slot
from xds.filters import rbac, router
from xds.options import Options

HttpFilterMaker = Callable[[Slot, Options], HttpFilter]

# Order is policy:
HTTP_FILTERS: tuple[HttpFilterMaker, ...] = (
    rbac.http_filter,  # first: nothing looks at, changes or answers a request that policy has not allowed
    router.http_filter,  # last: Envoy demands a terminal filter
)
