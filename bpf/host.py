"""What the host must look like so that redirected packets reach the proxy: one device, two rules, two routes, an
nftables table and a few sysctls. All in the current network namespace; every old value is recorded and put back.

facts/envoy-and-kernel.md tells why each piece is there; its scars are named by number.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bpf import netlink as nl
from bpf.constants import MARK_EGRESS_ANSWER, MARK_INGRESS_UPSTREAM, MARK_MASK, MARK_TO_PROXY, ROUTE_TABLE
from bpf.links import LINK, ROUTE, link_by_name
from policies.types import Protocol

DEVICE = "deflector0"
RULE_PRIORITY = 104  # before every table but `local`, and before the rules that CNIs add for their own tables
# A container's own /proc/sys cannot be written to: there, the environment says where the node's is mounted.
PROC = Path(os.environ.get("DEFLECTOR_PROC_SYS_NET", "/proc/sys/net"))
NFT_SECONDS = 10.0

IFLA_IFNAME, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_AF_SPEC = 3, 18, 1, 2, 26
IFLA_INET6_ADDR_GEN_MODE, VETH_INFO_PEER = 8, 1
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK = 6, 10, 15, 16
FR_ACT_TO_TBL = 1
RTA_OIF, RTA_TABLE = 4, 15
RTN_LOCAL, RT_SCOPE_HOST, RTPROT_STATIC = 2, 254, 4
LOOPBACK = 1
FAMILIES = (socket.AF_INET, socket.AF_INET6)
RULE = struct.Struct("=BBBBBBBBI")

# (path below /proc/sys/net, value, why). Written only where it differs; {device} is the helper.
SYSCTLS = (
    # scar 7: with DNAT, a forwarded packet that early demux gave a socket is dropped by the kernel
    ("ipv4/tcp_early_demux", "0"),
    ("ipv4/udp_early_demux", "0"),  # both are in force for IPv6 as well
    # scar 9: a redirected packet has the source of a pod, or of the host itself, and comes in at the helper
    ("ipv4/conf/{device}/rp_filter", "0"),
    ("ipv4/conf/{device}/accept_local", "1"),
    ("ipv6/conf/{device}/accept_ra", "0"),
)
# The filter that is in force is the stricter one of `all` and the device, so a strict `all` moves to the devices.
RP_ALL = "ipv4/conf/all/rp_filter"

# `reopened`: connections whose tuple has a TIME_WAIT socket, and datagrams that came in fragments: see deliver() and
# deliver_datagram() in bpf/src/proxy.h. The chain `reopen` has a rule for each proxy port; what it does not know is
# dropped. Such a rule also makes the kernel reassemble (at priority -400) before it looks for the socket.
NFT_TABLE = f"""
add table inet deflector
add set inet deflector proxy_ports {{ type inet_service; }}
add set inet deflector proxy_ports_udp {{ type inet_service; }}
add chain inet deflector prerouting {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet deflector output {{ type filter hook output priority raw; policy accept; }}
add chain inet deflector input {{ type filter hook input priority filter - 1; policy accept; }}
flush chain inet deflector prerouting
flush chain inet deflector output
flush chain inet deflector input
add rule inet deflector prerouting meta mark & {MARK_MASK:#x} == {MARK_TO_PROXY:#x} notrack
add rule inet deflector output meta mark & {MARK_MASK:#x} == {MARK_INGRESS_UPSTREAM:#x} notrack
add rule inet deflector output meta mark & {MARK_MASK:#x} == {MARK_EGRESS_ANSWER:#x} notrack
add rule inet deflector input tcp dport @proxy_ports meta mark & {MARK_MASK:#x} != {MARK_TO_PROXY:#x} \
reject with tcp reset
add rule inet deflector input udp dport @proxy_ports_udp meta mark & {MARK_MASK:#x} != {MARK_TO_PROXY:#x} reject
add chain inet deflector reopen
add chain inet deflector reopened {{ type filter hook prerouting priority mangle; policy accept; }}
flush chain inet deflector reopened
add rule inet deflector reopened meta mark & {MARK_MASK:#x} != {MARK_TO_PROXY:#x} accept
add rule inet deflector reopened meta mark & 0xffff0000 == 0 accept
add rule inet deflector reopened jump reopen
add rule inet deflector reopened drop
"""


class HostError(Exception):
    """The host cannot be set up; the message is one line that says what and what to do."""


@dataclass(slots=True)
class Record:
    """What was changed, kept in a file so that a later process can undo it."""

    path: Path
    sysctls: dict[str, str] = field(default_factory=dict)  # path -> value before us
    mounted: str = ""  # mount point of a bpffs that we mounted

    @classmethod
    def read(cls, path: Path) -> Record:
        try:
            content = json.loads(path.read_text())
            return cls(path, dict(content["sysctls"]), str(content["mounted"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return cls(path)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps({"sysctls": self.sysctls, "mounted": self.mounted}, sort_keys=True) + "\n")
        beside.replace(self.path)


def setup(record: Record, device: str = DEVICE) -> int:
    """Make or complete everything; returns the interface index of the helper. Idempotent: the proxy ports stay as they
    are, and what is as it should be is not touched, so that nobody who watches is told. HostError on failure."""
    index = _add_device(device)
    for family in FAMILIES:
        if family == socket.AF_INET6 and not _has_ipv6():
            continue
        add_rule(family)
        _add_route(family)
    _set_sysctls(record, device)
    nft(NFT_TABLE, "set up the nftables table")
    return index


class ProxyPort(NamedTuple):
    """Where a slot's listener takes what is redirected to it. Protocol.TCP or UDP."""

    protocol: Protocol
    port: int


SETS = {Protocol.TCP: "proxy_ports", Protocol.UDP: "proxy_ports_udp"}


def tproxy_rule(place: ProxyPort) -> str:
    """Gives a packet that is marked with this port to the listener there."""
    mark = MARK_TO_PROXY | place.port << 16
    words = f"meta mark {mark:#x} meta l4proto {place.protocol.name.lower()} tproxy to :{place.port} accept"
    return f"add rule inet deflector reopen {words}\n"


def set_proxy_ports(places: Iterable[ProxyPort]) -> None:
    """What goes straight to these ports is refused from now on. Replaces the ports in one transaction; call it before
    the first redirect to a new one. Makes the table again if somebody has flushed it."""
    known = sorted(set(places))
    script = f"{NFT_TABLE}flush chain inet deflector reopen\n"
    for protocol, name in SETS.items():
        script += f"flush set inet deflector {name}\n"
        ports = ", ".join(str(place.port) for place in known if place.protocol is protocol)
        if ports:
            script += f"add element inet deflector {name} {{ {ports} }}\n"
    nft(script + "".join(map(tproxy_rule, known)), "set the proxy ports")


def teardown(record: Record, device: str = DEVICE) -> None:
    """Remove everything that setup makes, whoever made it, and put the recorded sysctls back. Idempotent."""
    if shutil.which("nft"):
        nft("add table inet deflector\ndelete table inet deflector\n", "remove the nftables table")
    with nl.Netlink() as net:
        for family in FAMILIES:
            _delete(net, nl.RTM_DELRULE, _rule(family), "remove the routing rule")
            _delete(net, nl.RTM_DELROUTE, _route(family), "remove the route")
        link = link_by_name(device)
        if link is not None and link.kind == "veth":
            _delete(net, nl.RTM_DELLINK, LINK.pack(0, 0, link.index, 0, 0), f"remove {device}")
    for path, value in reversed(list(record.sysctls.items())):
        try:
            (PROC / path).write_text(value)
        except FileNotFoundError:
            pass  # its device is gone
    record.sysctls.clear()


def _has_ipv6() -> bool:
    return (PROC / "ipv6/conf/all").exists()


def _add_device(name: str) -> int:
    """A veth whose other end nobody uses: pods have veths, so the kernel has them, which cannot be said of dummies.
    Redirected packets enter it by bpf_redirect. No address, no neighbours, no router solicitations."""
    found = link_by_name(name)
    if found is not None and found.kind != "veth":
        raise HostError(f"interface {name} is a {found.kind or 'device'} of somebody else: rename it")
    with nl.Netlink() as net:
        if found is None:
            body = LINK.pack(0, 0, 0, 0, 0) + nl.text(IFLA_IFNAME, name) + veth_info(peer=f"{name}p")
            net.change(nl.RTM_NEWLINK, body, f"add {name}", nl.NLM_F_CREATE | nl.NLM_F_EXCL)
        _raise_device(net, f"{name}p")
        return _raise_device(net, name)


def veth_info(peer: str) -> bytes:
    other = nl.attribute(VETH_INFO_PEER | nl.NLA_F_NESTED, LINK.pack(0, 0, 0, 0, 0) + nl.text(IFLA_IFNAME, peer))
    return nl.nested(IFLA_LINKINFO, nl.text(IFLA_INFO_KIND, "veth"), nl.nested(IFLA_INFO_DATA, other))


def _raise_device(net: nl.Netlink, name: str) -> int:
    """Set the interface up, without addresses of its own; returns its index."""
    link = link_by_name(name)
    if link is None:
        raise HostError(f"interface {name} is missing: remove its other end, and start again")
    if not link.up:
        if _has_ipv6():
            silent = nl.nested(socket.AF_INET6, nl.attribute(IFLA_INET6_ADDR_GEN_MODE, b"\1"))
            body = LINK.pack(0, 0, link.index, 0, 0) + nl.nested(IFLA_AF_SPEC, silent)
            net.change(nl.RTM_NEWLINK, body, f"configure {name}")
        net.change(nl.RTM_NEWLINK, LINK.pack(0, 0, link.index, 1, 1), f"set {name} up")
    return link.index


def _rule(family: int) -> bytes:
    return (
        RULE.pack(family, 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
        + nl.u32(FRA_PRIORITY, RULE_PRIORITY)
        + nl.u32(FRA_FWMARK, MARK_TO_PROXY)
        + nl.u32(FRA_FWMASK, MARK_MASK)
        + nl.u32(FRA_TABLE, ROUTE_TABLE)
    )


def add_rule(family: int) -> None:
    with nl.Netlink() as net:
        try:
            net.change(nl.RTM_NEWRULE, _rule(family), "add the routing rule", nl.NLM_F_CREATE | nl.NLM_F_EXCL)
        except nl.NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise


def _route(family: int) -> bytes:
    head = ROUTE.pack(family, 0, 0, 0, 0, RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL, 0)
    return head + nl.u32(RTA_TABLE, ROUTE_TABLE) + nl.u32(RTA_OIF, LOOPBACK)


def _add_route(family: int) -> None:
    with nl.Netlink() as net:
        flags = nl.NLM_F_CREATE | nl.NLM_F_EXCL
        try:
            net.change(nl.RTM_NEWROUTE, _route(family), f"add the route of table {ROUTE_TABLE}", flags)
        except nl.NetlinkError as error:
            if error.errno == errno.EEXIST:
                return
            if error.errno == errno.EACCES and family == socket.AF_INET6:
                return  # net.ipv6.conf.lo.disable_ipv6: nothing of IPv6 is delivered here, and nothing can be
            if error.errno == errno.ENETDOWN:
                raise HostError("the loopback device is down: ip link set lo up") from error
            raise


def _delete(net: nl.Netlink, kind: int, body: bytes, act: str) -> None:
    """Once for each copy that is there; nothing there is no error."""
    gone = (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EAFNOSUPPORT, errno.ENETUNREACH)
    for _ in range(8):
        try:
            net.change(kind, body, act)
        except nl.NetlinkError as error:
            if error.errno in gone:
                return
            raise


def _set_sysctls(record: Record, device: str) -> None:
    wanted = {path.format(device=device): value for path, value in SYSCTLS}
    wanted |= _relaxed_rp_filter(device)
    changed = {}
    for path, value in wanted.items():
        try:
            now = (PROC / path).read_text().strip()
        except FileNotFoundError:
            if path.startswith("ipv6/"):
                continue
            raise HostError(f"sysctl net/{path} is missing: is /proc mounted?") from None
        if now != value:
            changed[path] = (now, value)
    for path, (now, _) in changed.items():
        if f"conf/{device}/" not in path:  # these go with the device
            record.sysctls.setdefault(path, now)
    record.save()  # before the first change, so that no death in between loses an old value
    for path, (_, value) in changed.items():
        (PROC / path).write_text(value)


def _relaxed_rp_filter(device: str) -> dict[str, str]:
    """Where `all` is strict, every other device takes the strictness over, and `all` lets the helper be."""
    if (PROC / RP_ALL).read_text().strip() == "0":
        return {}
    strict = (PROC / RP_ALL).read_text().strip()
    out = {}
    for folder in sorted((PROC / "ipv4/conf").iterdir()):
        if folder.name in ("all", device):
            continue
        own = (folder / "rp_filter").read_text().strip()
        # 1 is strict, 2 loose; the kernel takes the larger number
        out[f"ipv4/conf/{folder.name}/rp_filter"] = max(own, strict)
    return out | {RP_ALL: "0"}


def nft(script: str, act: str) -> None:
    """Run a script as one transaction. HostError if it is not taken."""
    command = ["nft", "-f", "-"]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, input=script, text=True, capture_output=True, timeout=NFT_SECONDS, env=environment, check=False
        )
    except FileNotFoundError:
        raise HostError("nft is missing: apt install nftables") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"{act}: nft did not answer within {NFT_SECONDS:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise HostError(f"{act}: {lines[0] if lines else 'nft failed'}")
