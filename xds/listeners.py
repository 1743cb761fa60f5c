"""The listener of a slot: takes connections that the kernel redirects, and hands them on as if it were not there.

Pure. The laws (facts: Envoy and the kernel, "Redirection"):
- bound to the wildcard address with IP_TRANSPARENT, so that an accepted socket's own address is the original
  destination; `set_filter_state` tells the cluster (the original_dst listener filter would ask connection tracking and
  get a service's address);
- SO_MARK on the listener is inherited by SYN-ACKs and accepted sockets; `original_src` binds upstream sockets to the
  client's address and marks them, so that the tc programs know both;
- a wildcard listener is reachable by anyone: a connection whose destination is the proxy port was not redirected, and
  no filter chain takes it. Envoy closes it before a byte is read (and cannot connect to itself in a circle).
"""

from __future__ import annotations

import ipaddress

from envoy.config.core.v3 import base_pb2, socket_option_pb2
from envoy.config.core.v3.address_pb2 import Address
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.common.set_filter_state.v3.value_pb2 import FilterStateValue
from envoy.extensions.filters.listener.original_src.v3.original_src_pb2 import OriginalSrc
from envoy.extensions.filters.network.set_filter_state.v3.set_filter_state_pb2 import Config as SetFilterState
from envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2 import DestinationPortInput
from google.protobuf.wrappers_pb2 import StringValue

from policies.ir import Slot
from policies.types import Direction
from xds import denial
from xds.clusters import KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES, KEEPALIVE_TIME_S, cluster_keys
from xds.filters.rbac import filter_key
from xds.hcm import connection_manager
from xds.options import Options
from xds.resources import LISTENER, Resource, pack, resource
from xds.type.matcher.v3.matcher_pb2 import Matcher

REDIRECTED = "redirected"  # the name of the one filter chain

# Linux, asm-generic/socket.h and netinet/tcp.h: the module may not import socket.
SOL_SOCKET, SO_KEEPALIVE, SO_MARK = 1, 9, 36
IPPROTO_TCP, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT = 6, 4, 5, 6

TEXT = "envoy.string"  # the factory of filter state that is text
ORIGINAL_DESTINATION_STATE = "envoy.network.transport_socket.original_dst_address"

_TRAFFIC = {Direction.INGRESS: base_pb2.TrafficDirection.INBOUND, Direction.EGRESS: base_pb2.TrafficDirection.OUTBOUND}


def listener_resource(slot: Slot, port: int, options: Options) -> Resource:
    """The listener of a slot on a proxy port."""
    listener = transparent_listener(slot, port, options)
    listener.filter_chains.append(_chain(slot, options))
    listener.filter_chain_matcher.CopyFrom(only_redirected(port, chosen(REDIRECTED)))
    return resource(LISTENER, listener, refers=(*cluster_keys(), filter_key(slot)))


def transparent_listener(slot: Slot, port: int, options: Options) -> Listener:
    """A listener that is not seen by either side, still without filter chains."""
    marks = options.marks[slot.direction]
    listener = Listener(
        name=slot.name,
        stat_prefix=slot.name,
        address=_address("0.0.0.0", port),
        traffic_direction=_TRAFFIC[slot.direction],
        socket_options=_socket_options(marks.accepted),
    )
    if options.ipv6:
        listener.additional_addresses.add(address=_address("::", port))
    listener.transparent.value = True
    listener.enable_reuse_port.value = options.reuse_port
    listener.listener_filters.add(
        name="envoy.filters.listener.original_src", typed_config=pack(OriginalSrc(mark=marks.upstream))
    )
    return listener


def _address(host: str, port: int) -> Address:
    address = Address()
    address.socket_address.address = str(ipaddress.ip_address(host))
    address.socket_address.port_value = port
    return address


def only_redirected(port: int, choice: Matcher.OnMatch) -> Matcher:
    """Makes the choice, unless the destination is the proxy port itself: then no filter chain, and Envoy closes."""
    matcher = Matcher()
    entry = matcher.matcher_list.matchers.add()
    direct = entry.predicate.not_matcher.single_predicate
    direct.input.name = "destination-port"
    direct.input.typed_config.CopyFrom(pack(DestinationPortInput()))
    direct.value_match.exact = str(port)
    entry.on_match.CopyFrom(choice)
    return matcher


def chosen(chain: str) -> Matcher.OnMatch:
    """The filter chain of this name."""
    choice = Matcher.OnMatch()
    choice.action.name = "filter-chain"
    choice.action.typed_config.CopyFrom(pack(StringValue(value=chain)))
    return choice


def _chain(slot: Slot, options: Options) -> FilterChain:
    state = SetFilterState(
        on_new_connection=[
            original_destination(),
            slot_named(slot),
        ]
    )
    return FilterChain(
        name=REDIRECTED,
        filters=[
            Filter(name="envoy.filters.network.set_filter_state", typed_config=pack(state)),
            Filter(
                name="envoy.filters.network.http_connection_manager",
                typed_config=pack(connection_manager(slot, options)),
            ),
        ],
    )


def original_destination() -> FilterStateValue:
    """Where the cluster connects to."""
    return state(ORIGINAL_DESTINATION_STATE, "%DOWNSTREAM_LOCAL_ADDRESS%")


def slot_named(slot: Slot) -> FilterStateValue:
    """The slot, for the access log."""
    return state(denial.SLOT_FILTER_STATE, slot.name.replace("%", "%%"), factory=TEXT)


def state(key: str, value: str, factory: str = "") -> FilterStateValue:
    """An object of the connection's filter state; `value` is a format."""
    text = SubstitutionFormatString()
    text.text_format_source.inline_string = value
    return FilterStateValue(object_key=key, factory_key=factory, format_string=text)


def _socket_options(mark: int) -> list[socket_option_pb2.SocketOption]:
    """The mark, and keepalive: accepted sockets inherit both from the listening one."""
    values = (
        ("mark", SOL_SOCKET, SO_MARK, mark),
        ("keepalive", SOL_SOCKET, SO_KEEPALIVE, 1),
        ("keepalive idle", IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_TIME_S),
        ("keepalive interval", IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        ("keepalive probes", IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES),
    )
    before_bind = socket_option_pb2.SocketOption.STATE_PREBIND
    return [
        socket_option_pb2.SocketOption(description=text, level=level, name=name, int_value=value, state=before_bind)
        for text, level, name, value in values
    ]
