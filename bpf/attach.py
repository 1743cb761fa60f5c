"""Filters on the clsact hooks of a device: ours by priority and handle, everybody else's left alone.

clsact rather than tcx, which needs 6.6; a filter is replaced atomically, so there is no moment without a program.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

from bpf import netlink as nl

TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_ID = 6, 7, 8, 11
DIRECT_ACTION = 1
CLSACT_PARENT, CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
ETH_P_ALL = 3
PRIORITY, HANDLE = 4, 0x2004
NAME = "deflector"  # prefix of the filter's name: a filter with our numbers and another name is not ours

TC = struct.Struct("=BxHiIII")


class Hook(IntEnum):
    """Parent of the filter."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3


@dataclass(frozen=True, slots=True)
class Filter:
    """A bpf filter found on a hook."""

    priority: int
    handle: int
    name: str
    program: int  # id

    @property
    def is_ours(self) -> bool:
        return (self.priority, self.handle) == (PRIORITY, HANDLE) and self.name.startswith(NAME)


def _info(priority: int) -> int:
    return priority << 16 | socket.htons(ETH_P_ALL)


def add_clsact(net: nl.Netlink, ifindex: int) -> None:
    body = TC.pack(0, 0, ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0) + nl.text(TCA_KIND, "clsact")
    try:
        net.change(nl.RTM_NEWQDISC, body, f"add clsact to interface {ifindex}", nl.NLM_F_CREATE | nl.NLM_F_EXCL)
    except nl.NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise


def attach(ifindex: int, hook: Hook, program: int, name: str) -> None:
    """Put the program with descriptor `program` on the hook, in place of an older one of ours."""
    options = nl.nested(
        TCA_OPTIONS,
        nl.u32(TCA_BPF_FD, program),
        nl.text(TCA_BPF_NAME, f"{NAME}:{name}"),
        nl.u32(TCA_BPF_FLAGS, DIRECT_ACTION),
    )
    body = TC.pack(0, 0, ifindex, HANDLE, hook, _info(PRIORITY)) + nl.text(TCA_KIND, "bpf") + options
    with nl.Netlink() as net:
        add_clsact(net, ifindex)
        flags = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
        net.change(nl.RTM_NEWTFILTER, body, f"attach {name} to interface {ifindex}", flags)


def filters(ifindex: int, hook: Hook) -> list[Filter]:
    """The bpf filters of a hook, in the kernel's order; none where there is no clsact or no such device."""
    with nl.Netlink() as net:
        return _filters(net, ifindex, hook)


def _filters(net: nl.Netlink, ifindex: int, hook: Hook) -> list[Filter]:
    try:
        answers = net.dump(
            nl.RTM_GETTFILTER, TC.pack(0, 0, ifindex, 0, hook, 0), f"list filters of interface {ifindex}"
        )
    except nl.NetlinkError as error:
        if error.errno in (errno.EINVAL, errno.ENODEV, errno.ENOENT):
            return []
        raise
    found = []
    for answer in answers:
        _, _, _, handle, _, info = TC.unpack_from(answer.body)
        given = nl.attributes(answer.body[TC.size :])
        if not handle:  # the head of a priority, not a filter
            continue
        options = nl.attributes(given.get(TCA_OPTIONS, b""))
        program = struct.unpack("=I", options[TCA_BPF_ID])[0] if TCA_BPF_ID in options else 0
        found.append(Filter(info >> 16, handle, nl.zero_terminated(options.get(TCA_BPF_NAME, b"")), program))
    return found


def detach(ifindex: int) -> None:
    """Take our filters off both hooks, and the clsact too if nobody else has a filter there."""
    with nl.Netlink() as net:
        others = False
        ours = False
        for hook in Hook:
            for one in _filters(net, ifindex, hook):
                others = others or not one.is_ours
                if one.is_ours:
                    ours = True
                    body = TC.pack(0, 0, ifindex, HANDLE, hook, _info(PRIORITY)) + nl.text(TCA_KIND, "bpf")
                    _forgiving(net, nl.RTM_DELTFILTER, body, f"detach from interface {ifindex}")
        if ours and not others:
            body = TC.pack(0, 0, ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0)
            _forgiving(net, nl.RTM_DELQDISC, body, f"remove clsact from interface {ifindex}")


def _forgiving(net: nl.Netlink, kind: int, body: bytes, act: str) -> None:
    """Deleting what is gone already, perhaps together with its device, is no error."""
    try:
        net.change(kind, body, act)
    except nl.NetlinkError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
            raise


def attached() -> list[int]:
    """Interfaces that carry a filter of ours, in order."""
    with nl.Netlink() as net:
        devices = net.dump(nl.RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0), "list interfaces")
        indices = sorted(struct.unpack_from("=i", m.body, 4)[0] for m in devices)
        return [i for i in indices if any(f.is_ours for hook in Hook for f in _filters(net, i, hook))]
