"""Interfaces, addresses and routes of the current network namespace: who leads to a pod, and when that changes.

A pod is attached at the device of its host route. Only a veth without a gateway and with a route for exactly this
address counts: where the node itself sits behind a veth, its uplink must not be taken for a pod.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from dataclasses import dataclass

from bpf import netlink as nl

IFLA_IFNAME, IFLA_LINKINFO, IFLA_LINK_NETNSID, IFLA_INFO_KIND = 3, 18, 37, 1
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA = 1, 4, 5, 9, 18
RTN_UNICAST, RTM_F_FIB_MATCH = 1, 0x2000
# Groups of rtnetlink: links, tc, IPv4 routes, IPv4 rules, IPv6 routes, IPv6 rules.
GROUPS = 0x1 | 0x8 | 0x40 | 0x80 | 0x400 | 0x40000
FILTERS = range(36, 47)  # RTM_NEWQDISC to RTM_GETTFILTER (linux/rtnetlink.h): where a pod is does not depend on these
NOWHERE = struct.pack("=i", -1)
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBi")
ROUTE = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface; `kind` is that of its driver ("veth", "dummy", ...) or "". `peer_namespace` is the number, here, of
    the network namespace where a veth has its other end; None if that is here too."""

    index: int
    name: str
    kind: str
    up: bool
    peer_namespace: int | None = None


def _link(message: nl.Message) -> Link:
    _, _, index, flags, _ = LINK.unpack_from(message.body)
    found = nl.attributes(message.body[LINK.size :])
    info = nl.attributes(found.get(IFLA_LINKINFO, b""))
    (number,) = struct.unpack("=i", found.get(IFLA_LINK_NETNSID, NOWHERE))
    return Link(
        index,
        nl.zero_terminated(found.get(IFLA_IFNAME, b"")),
        nl.zero_terminated(info.get(IFLA_INFO_KIND, b"")),
        bool(flags & 1),
        number if number >= 0 else None,
    )


def links() -> dict[int, Link]:
    """Every interface by index."""
    with nl.Netlink() as net:
        found = [_link(m) for m in net.dump(nl.RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0), "list interfaces")]
    return {link.index: link for link in found}


def link_by_index(index: int) -> Link | None:
    return _find_link(LINK.pack(0, 0, index, 0, 0))


def link_by_name(name: str) -> Link | None:
    return _find_link(LINK.pack(0, 0, 0, 0, 0) + nl.text(IFLA_IFNAME, name))


def _find_link(body: bytes) -> Link | None:
    with nl.Netlink() as net:
        try:
            return _link(net.get(nl.RTM_GETLINK, body, "find interface"))
        except nl.NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise


def host_addresses() -> tuple[str, ...]:
    """Addresses of this namespace, sorted, without loopback ones. Link-local ones count: CNIs give the host side of a
    veth 169.254.1.1 or fe80::1, and that is what the host then speaks to its pods from."""
    found = set()
    with nl.Netlink() as net:
        for message in net.dump(nl.RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0), "list addresses"):
            given = nl.attributes(message.body[ADDRESS.size :])
            raw = given.get(IFA_LOCAL) or given.get(IFA_ADDRESS)
            if raw:
                found.add(ipaddress.ip_address(raw))
    usable = [a for a in found if not a.is_loopback]
    return tuple(str(a) for a in sorted(usable, key=lambda a: (a.version, a)))


def route_device(address: str) -> int | None:
    """Index of the veth that leads to the pod with this address; None if there is none."""
    parsed = ipaddress.ip_address(address)
    family, bits = FAMILY[parsed.version], parsed.max_prefixlen
    body = ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, RTM_F_FIB_MATCH) + nl.attribute(RTA_DST, parsed.packed)
    with nl.Netlink() as net:
        try:
            answer = net.get(nl.RTM_GETROUTE, body, f"find route to {address}")
        except nl.NetlinkError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
                return None  # no route, unreachable, prohibit, blackhole
            raise
    _, length, *_, kind, _ = ROUTE.unpack_from(answer.body)
    given = nl.attributes(answer.body[ROUTE.size :])
    indirect = any(a in given for a in (RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH))
    if kind != RTN_UNICAST or length != bits or indirect or RTA_OIF not in given:
        return None
    index: int = struct.unpack("=I", given[RTA_OIF])[0]
    link = link_by_index(index)
    return index if link is not None and link.kind == "veth" else None


class Changes:
    """Readable when links, filters, routes or rules have changed. For the agent's event loop:
    `add_reader(changes.fileno(), ...)`, then `drain()`. It says that something changed, not what: the reader looks
    again."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, nl.NETLINK_ROUTE)
        self._socket.bind((0, GROUPS))
        self._moved = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def moved(self) -> bool:
        """Whether what was drained since this was last asked told of anything but filters: links, routes or rules, or
        something lost."""
        moved, self._moved = self._moved, False
        return moved

    def drain(self) -> bool:
        """Read what is queued, at most 1,000 datagrams; whether there was any. An overrun is a change too."""
        changed = False
        for _ in range(1000):
            try:
                raw = self._socket.recv(nl.RECEIVE_BYTES)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changed = self._moved = True
            else:
                changed = True
                kinds = {kind for kind, *_ in nl.messages(raw)}
                self._moved = self._moved or not kinds or any(kind not in FILTERS for kind in kinds)
        return changed

    def close(self) -> None:
        self._socket.close()
