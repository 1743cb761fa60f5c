"""The routes of a slot: everything goes where the connection was going, and a few requests need help to get there.

Pure. The usual request passes the special routes by three comparisons.
"""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost

from policies.ir import Slot
from xds import denial
from xds.clusters import ORIGINAL_DESTINATION, UPGRADE, UPGRADE_DESTINATION, WEBSOCKET_IN_TRANSIT
from xds.codec import FORWARDED_PROTO, KEPT_PROTO, NO_HOST

_OVERWRITE = base_pb2.HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def virtual_host(slot: Slot) -> VirtualHost:
    """One virtual host for everything. Routes bear the slot's name for the access log (xds.access_log)."""
    host = VirtualHost(
        name=slot.name, domains=["*"], routes=[_tunnel(), _websocket(slot), _no_host(slot), _usual(slot)]
    )
    host.request_headers_to_remove.append(KEPT_PROTO)  # the route's actions come before the virtual host's
    return host


def copy_header(source: str, target: str) -> base_pb2.HeaderValueOption:
    """Set the target to the source's value; an empty value adds nothing."""
    return _set_header(target, f"%REQ({source})%")


def _set_header(name: str, value: str) -> base_pb2.HeaderValueOption:
    header = base_pb2.HeaderValue(key=name, value=value)
    return base_pb2.HeaderValueOption(header=header, append_action=_OVERWRITE)


def _usual(slot: Slot) -> Route:
    route = Route(name=slot.name)
    route.match.prefix = ""
    route.route.cluster = ORIGINAL_DESTINATION
    route.route.timeout.FromSeconds(0)
    route.request_headers_to_remove.append(FORWARDED_PROTO)
    route.request_headers_to_add.append(copy_header(KEPT_PROTO, FORWARDED_PROTO))
    return route


def _websocket(slot: Slot) -> Route:
    """A WebSocket handshake by another name until it leaves Envoy (xds.clusters restores it).

    The router drops the body of a handshake's answer unless that is 101 or an error: a server that does not know the
    upgrade answers 200 with a body. Upgrades of other names have no such exception; like WebSocket's they hold back
    what the client sends until the server has agreed, so that nothing is smuggled behind a refused handshake.
    """
    route = _usual(slot)
    upgrade = route.match.headers.add(name=UPGRADE)
    upgrade.string_match.exact = "websocket"
    upgrade.string_match.ignore_case = True
    route.route.cluster = UPGRADE_DESTINATION
    route.request_headers_to_add.append(_set_header(UPGRADE, WEBSOCKET_IN_TRANSIT))
    return route


def _no_host(slot: Slot) -> Route:
    """HTTP/1.0 without Host becomes HTTP/1.1, where one is required: the address, as of a client that was given it."""
    route = _usual(slot)
    authority = route.match.headers.add(name=":authority")
    authority.string_match.exact = NO_HOST
    route.route.host_rewrite = "%DOWNSTREAM_LOCAL_ADDRESS%"
    return route


def _tunnel() -> Route:
    """CONNECT is refused before it is judged (403): a rule can say nothing of what goes through a tunnel. Without a
    route of its own it would be 404. It bears no name, so that the log tells Envoy's reason."""
    route = Route()
    route.match.connect_matcher.SetInParent()
    route.direct_response.status = denial.STATUS
    return route
