"""What a node has that may clash, read with its own tools: interfaces, filters, rules, firewall, sysctls, sockets.

Reads only. A tool that is missing or fails leaves its fact None: a check that could not be made is not a good one.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bpf import attach, links, sys

TOOL_SECONDS: Final = 20.0
VETHS_MAX: Final = 512  # that are looked at
PROG_QUERY: Final = 16
TCX: Final = {"ingress": 46, "egress": 47}  # enum bpf_attach_type
_QUERY: Final = struct.Struct("=IIIIQIIQQQQ")
LISTENING: Final = "0A"
SETS_MARK: Final = re.compile(r"--set-x?mark (0x[0-9a-f]+)(?:/(0x[0-9a-f]+))?")
CILIUM: Final = ("/var/run/cilium/cilium.sock", "/sys/fs/bpf/tc/globals/cilium_ipcache")


@dataclass(frozen=True, slots=True)
class Others:
    """Programs of others on one interface: (hook, name)."""

    interface: str
    filters: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """`rules`: of policy routing, as `ip -j rule` has them; `tables`: nftables' objects; `marks`: (value, mask) that
    iptables' rules set; `zones`: whether some rule gives connections a zone."""

    interfaces: tuple[str, ...] = ()
    others: tuple[Others, ...] = ()
    rules: Sequence[Mapping[str, Any]] | None = None
    routes: Sequence[Mapping[str, Any]] | None = None  # of Deflector's table
    tables: Sequence[Mapping[str, Any]] | None = None
    marks: Sequence[tuple[int, int]] | None = None
    zones: bool = False
    rp_filter: Mapping[str, str] = field(default_factory=dict)
    listening: frozenset[int] = frozenset()
    cilium: tuple[str, ...] = ()


def gather(table: int) -> Facts:
    """Of the network namespace that we are in. `table`: number of Deflector's routing table."""
    found = links.links()
    veths = [link for link in found.values() if link.kind == "veth"][:VETHS_MAX]
    saved = _iptables()
    return Facts(
        interfaces=tuple(sorted(link.name for link in found.values())),
        others=tuple(one for link in veths if (one := _others(link.name, link.index)).filters),
        rules=_json("ip", "-j", "rule"),
        routes=_json("ip", "-j", "route", "show", "table", str(table)),
        tables=_nft(),
        marks=_marks(saved) if saved is not None else None,
        zones=" --zone" in (saved or ""),
        rp_filter=_rp_filter(["all", *(link.name for link in veths)]),
        listening=_listening(),
        cilium=tuple(path for path in CILIUM if Path(path).exists()),
    )


def _others(name: str, index: int) -> Others:
    found: list[tuple[str, str]] = []
    for hook in attach.Hook:
        with suppress(OSError):
            found += [
                (hook.name.lower(), one.name or "a filter") for one in attach.filters(index, hook) if not one.is_ours
            ]
    for hook_name, kind in TCX.items():
        if count := _tcx(index, kind):
            found.append((hook_name, f"{count} TCX programs"))
    return Others(name, tuple(found))


def _tcx(index: int, kind: int) -> int:
    """How many programs hang there by TCX: these run before ours. (None on kernels before 6.6.)"""
    asked = bytearray(_QUERY.pack(index, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    try:
        sys._bpf_into(PROG_QUERY, asked, "ask for TCX programs")
    except OSError:
        return 0
    return int(_QUERY.unpack(asked)[5])


def _run(*argv: str) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _json(*argv: str) -> Sequence[Mapping[str, Any]] | None:
    said = _run(*argv)
    if said is None:
        return None
    with suppress(ValueError):
        found = json.loads(said or "[]")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else None
    return None


def _nft() -> Sequence[Mapping[str, Any]] | None:
    said = _run("nft", "-j", "list", "ruleset")
    with suppress(ValueError, TypeError):
        found = json.loads(said or "")["nftables"]
        return [one for one in found if isinstance(one, dict)]
    return None


def _iptables() -> str | None:
    """Every rule of iptables, of both families and both kernels' forms that are there; None if no tool is."""
    tools = [f"{name}{form}-save" for name in ("iptables", "ip6tables") for form in ("", "-legacy")]
    said = [text for tool in tools if (text := _run(tool)) is not None]
    return "\n".join(said) if said else None


def _marks(saved: str) -> list[tuple[int, int]]:
    return [(int(value, 16), int(mask or "0xffffffff", 16)) for value, mask in SETS_MARK.findall(saved)]


def _rp_filter(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with suppress(OSError):
            found[name] = Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").read_text().strip()
    return found


def _listening() -> frozenset[int]:
    found: set[int] = set()
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
            found |= {int(line.split()[1].rpartition(":")[2], 16) for line in lines if line.split()[3] == LISTENING}
    return frozenset(found)
