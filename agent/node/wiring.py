"""Adapters: each satisfies a Protocol of one package with another package. Nothing is decided here."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Collection, Iterable, Mapping, Set

from agent.names.learning import LayerFull
from agent.names.names import packed
from agent.node.ports import Place
from agent.node.regenerate import EffectFailed
from bpf import links
from bpf.constants import Dir, EventType, Reply
from bpf.datapath import Datapath, DatapathError
from bpf.encoding import owned
from bpf.event import Event
from bpf.host import ProxyPort
from bpf.netlink import NetlinkError
from flows.record import PacketKind, PacketRecord, PacketVerdict
from policies.compiling.changes import changed_keys
from policies.compiling.fqdns import Home
from policies.ir import NodePolicy
from policies.objects import Pod, PodKey
from policies.types import (
    IDENTITY_UNKNOWN,
    IDENTITY_WORLD,
    IDENTITY_WORLD_IPV4,
    IDENTITY_WORLD_IPV6,
    Direction,
    Protocol,
)
from policies.world import World

log = logging.getLogger("deflector.kernel")


class KernelPolicy:
    """agent.node.regenerate.Kernel on the data path: map entries, then programs on the veths of new pods."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._attached = set(datapath.attached())
        self._reserved: frozenset[Place] | None = None
        self._doubtful = False

    @property
    def attached(self) -> frozenset[int]:
        return frozenset(self._attached)

    def doubt(self) -> None:
        """Something has changed on the host: before the next step, put back what is missing of ours. A pod whose
        filters somebody removed (`tc qdisc del`, another network agent) would be open."""
        self._doubtful = True

    async def reserve(self, places: Iterable[Place]) -> None:
        wanted = frozenset(places)
        if wanted == self._reserved and not self._doubtful:
            return
        try:
            if self._doubtful:
                await self._repair()
            await asyncio.to_thread(self._datapath.set_proxy_ports, [ProxyPort(*place) for place in sorted(wanted)])
        except DatapathError as error:
            raise EffectFailed(str(error)) from error
        self._reserved = wanted

    async def _repair(self) -> None:
        self._doubtful = False  # a change that comes meanwhile is one more reason to look
        try:
            self._attached = await asyncio.to_thread(self._datapath.repair, sorted(self._attached))
        except DatapathError:
            self._doubtful = True
            raise

    async def program(self, node: NodePolicy, ports: Mapping[str, int]) -> tuple[str, ...]:
        pods = {endpoint.id for endpoint in node.endpoints}
        try:
            closed = await asyncio.to_thread(self._datapath.program, node, ports)
        except DatapathError as error:
            # a pod that the maps do not know yet is closed by the programs, and open without them
            await asyncio.to_thread(self._attach, pods | self._attached)
            raise EffectFailed(str(error)) from error
        await asyncio.to_thread(self._attach, pods)
        return closed

    def _attach(self, wanted: set[int]) -> None:
        for ifindex in sorted(wanted - self._attached):
            try:
                self._datapath.attach(ifindex)
            except NetlinkError as error:
                if error.errno != errno.ENODEV:  # the pod has gone meanwhile: the next look at the routes will tell
                    raise EffectFailed(f"cannot attach to interface {ifindex}: {error}") from error
                continue
            self._attached.add(ifindex)
        for ifindex in sorted(self._attached - wanted):
            self._datapath.detach(ifindex)
            self._attached.discard(ifindex)


class KernelNames:
    """agent.names.keeping.NameKernel on the data path."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath

    def learn(self, moves: Mapping[Home, int | None]) -> None:
        try:
            self._datapath.learn({_place(home): who for home, who in moves.items() if who is not None})
            self._datapath.forget([_place(home) for home, who in moves.items() if who is None])
        except DatapathError as error:
            log.warning("%s", error)
            raise LayerFull(str(error)) from error

    def stage(self, moves: Mapping[Home, int | None]) -> None:
        self._datapath.stage({_place(home): who for home, who in moves.items()})

    def connected(self, addresses: Collection[bytes]) -> Mapping[bytes, Set[int]]:
        try:
            return self._datapath.connected(addresses)
        except DatapathError as error:
            raise OSError(str(error)) from error


def _place(home: Home) -> bytes:
    address = packed(home.prefix)
    return owned(address, home.endpoint) if home.endpoint else address


class PodPlaces:
    """Which pods are on this node, by the route to their address; remembered until a link or route changes.

    `node_name`: pods that say to be on another node need no look; "" where what they say means nothing.
    """

    def __init__(self, node_name: str = "") -> None:
        self._node_name = node_name
        self._places: dict[str, int | None] = {}
        self._pods: Mapping[PodKey, Pod] = {}
        self._possible: dict[PodKey, Pod] = {}  # that may be here
        self._local: dict[PodKey, int] | None = None
        self._host: tuple[str, ...] | None = None

    def forget(self) -> None:
        """Something has changed: look again."""
        self._places.clear()
        self._local = self._host = None

    def local(self, world: World) -> dict[PodKey, int]:
        """Endpoint ids (interface index of the host-side veth) of the pods of this node."""
        for key in changed_keys(self._pods, world.pods):
            self._local = None
            pod = world.pods.get(key)
            if pod is not None and self._may_be_here(pod):
                self._possible[key] = pod
            else:
                self._possible.pop(key, None)
        self._pods = world.pods
        if self._local is None:
            places = ((key, self._place(pod)) for key, pod in self._possible.items())
            self._local = {key: device for key, device in places if device is not None}
        return self._local

    def _place(self, pod: Pod) -> int | None:
        return next(filter(None, map(self._device, pod.addresses)), None)

    def _may_be_here(self, pod: Pod) -> bool:
        is_elsewhere = pod.published is not None or (self._node_name and pod.node_name not in ("", self._node_name))
        return not is_elsewhere and not pod.host_network and not pod.is_over

    def host_addresses(self) -> tuple[str, ...]:
        if self._host is None:
            self._host = links.host_addresses()
        return self._host

    def _device(self, address: str) -> int | None:
        if address not in self._places:
            self._places[address] = links.route_device(address)
        return self._places[address]


SOCKET_KINDS = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}


def port_is_free(protocol: Protocol, port: int) -> bool:
    """Whether a wildcard listener could have this port now, in both families."""
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, SOCKET_KINDS[protocol]) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            if error.errno != errno.EAFNOSUPPORT:
                raise
    return True


WORLD = (IDENTITY_WORLD, IDENTITY_WORLD_IPV4, IDENTITY_WORLD_IPV6)
DIRECTIONS: dict[int, Direction] = {Dir.INGRESS: Direction.INGRESS, Dir.EGRESS: Direction.EGRESS}


def packet_record(event: Event) -> PacketRecord | None:
    """A kernel event as flows knows it; None for an event of a type that this agent does not know."""
    kind, verdict, reason = _kind_of(event)
    if kind is None or not event.family:
        return None
    return PacketRecord(
        kind=kind,
        source_ip=event.source,
        destination_ip=event.destination,
        protocol=event.protocol,
        source_port=event.source_port,
        destination_port=event.destination_port,
        verdict=verdict,
        direction=DIRECTIONS.get(event.direction),
        source_identity=_known(event.source_identity),
        destination_identity=_known(event.destination_identity),
        tcp_flags=event.tcp_flags,
        icmp_type=event.icmp_type,
        icmp_code=event.icmp_code,
        drop_reason=reason,
        match_type=event.match_type,
        observation_point=event.sub_type if kind is PacketKind.TRACE else 0,
        trace_reason=event.trace_reason if event.reply != Reply.UNKNOWN else 0,
        proxy_port=event.proxy_port,
        interface_index=event.ifindex,
        source_mac=event.source_mac.hex(":"),
        destination_mac=event.destination_mac.hex(":"),
    )


def _known(identity: int) -> int | None:
    """None for the world: the kernel looks at services only where a policy asks; the view knows who is behind one."""
    return None if identity in (IDENTITY_UNKNOWN, *WORLD) else identity


def _kind_of(event: Event) -> tuple[PacketKind | None, PacketVerdict, int]:
    """Kind, verdict and drop reason."""
    if event.type == EventType.DROP:
        return PacketKind.DROP, PacketVerdict.DROPPED, event.sub_type
    if event.type == EventType.TRACE:
        return PacketKind.TRACE, PacketVerdict.FORWARDED, 0
    if event.type != EventType.VERDICT:
        return None, PacketVerdict.DROPPED, 0
    if event.verdict < 0:
        return PacketKind.POLICY_VERDICT, PacketVerdict.DROPPED, -event.verdict
    allowed = PacketVerdict.REDIRECTED if event.verdict else PacketVerdict.FORWARDED
    return PacketKind.POLICY_VERDICT, allowed, 0
