"""What the machine must have, probed by trying it: each answer is ok, missing, or unknown (we could not try).

Devices, filters, rules and firewall are tried in a network namespace that exists for the probe alone; maps and programs
are made and thrown away. Nothing of the host is changed.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import platform
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bpf import attach, compile, host, loader, sys
from bpf import netlink as nl
from bpf.layout import MapSpec, MapType
from bpf.links import LINK
from bpf.loader import Options

KERNEL = (5, 8)  # ring buffer; everything else that we use is older
KERNEL_REUSEPORT = (6, 6)  # bpf_sk_assign takes SO_REUSEPORT listeners
# Bits of a capability set (capabilities(7)). PERFMON: the verifier lets our programs compare packet pointers only then.
NET_ADMIN, SYS_ADMIN, PERFMON, BPF = 12, 21, 38, 39
CAPABILITIES = {"CAP_NET_ADMIN": (NET_ADMIN,), "CAP_BPF": (BPF, SYS_ADMIN), "CAP_PERFMON": (PERFMON, SYS_ADMIN)}
CLONE_NEWNET = 0x40000000
IP_TRANSPARENT = 19
HELPER_SK_LOOKUP_UDP, HELPER_SKC_LOOKUP_TCP, HELPER_SK_ASSIGN = 85, 99, 124
PROBE_SECONDS = 20.0


class State(StrEnum):
    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is needed. `remedy` says what to do where it is not ok."""

    name: str
    state: State
    detail: str = ""
    remedy: str = ""


def checks(options: Options | None = None) -> list[Check]:
    """Every check, in the order in which a person should repair them."""
    place = options or Options()
    found = [_root(), _kernel(), _bpffs(place), *_map_types(), _socket_helpers(), _transparent()]
    found += _in_scratch_namespace()
    found += _toolchain(place)
    return found


def reuseport_assignable() -> bool:
    """Whether the kernel can redirect to SO_REUSEPORT listeners; if not, proxies must listen on one socket."""
    return _version() >= KERNEL_REUSEPORT


def _version() -> tuple[int, int]:
    numbers = platform.release().split("-")[0].split(".")
    try:
        return int(numbers[0]), int(numbers[1])
    except (IndexError, ValueError):
        return 0, 0


def _root() -> Check:
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    lacking = [name for name, bits in CAPABILITIES.items() if not any(effective >> bit & 1 for bit in bits)]
    if lacking:
        return Check("root", State.MISSING, f"no {', '.join(lacking)}", "run as root (in a container: add these)")
    return Check("root", State.OK)


def _kernel() -> Check:
    release = platform.release()
    if _version() < KERNEL:
        wanted = ".".join(map(str, KERNEL))
        return Check("kernel", State.MISSING, release, f"Linux {wanted} or newer is needed")
    if not reuseport_assignable():
        return Check("kernel", State.OK, f"{release} (each proxy listener gets one socket: 6.6 could share it)")
    return Check("kernel", State.OK, release)


def _bpffs(options: Options) -> Check:
    if loader.is_bpffs(options.bpffs):
        return Check("bpffs", State.OK, f"mounted at {options.bpffs}")
    if "\tbpf\n" in Path("/proc/filesystems").read_text():
        return Check("bpffs", State.OK, f"will be mounted at {options.bpffs}")
    return Check("bpffs", State.MISSING, "not in /proc/filesystems", "a kernel with CONFIG_BPF_SYSCALL is needed")


def _map_types() -> list[Check]:
    probes = (
        ("LPM maps", MapSpec("probe", MapType.LPM_TRIE, 8, 4, 1, 1)),
        ("LRU maps", MapSpec("probe", MapType.LRU_HASH, 4, 4, 16)),
        ("ring buffer", MapSpec("probe", MapType.RINGBUF, 0, 0, 4096 * 16)),
    )
    return [_attempt(name, lambda spec=spec: os.close(sys.map_create(spec))) for name, spec in probes]  # type: ignore[misc]


def _attempt(name: str, act: Callable[[], object], remedy: str = "a newer kernel is needed") -> Check:
    """ok if `act` works, unknown if we may not, missing if the kernel says no."""
    try:
        act()
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return Check(name, State.UNKNOWN, "not permitted", "run as root")
        return Check(name, State.MISSING, str(error.strerror or error), remedy)
    except host.HostError as error:
        return Check(name, State.MISSING, str(error), remedy)
    return Check(name, State.OK)


def _socket_helpers() -> Check:
    """A program that calls the helper wrongly: the kernel complains of the arguments if it knows the helper."""
    for helper in (HELPER_SK_LOOKUP_UDP, HELPER_SKC_LOOKUP_TCP, HELPER_SK_ASSIGN):
        code = struct.pack("=BBhi", 0x85, 0, 0, helper) + struct.pack("=BBhi", 0x95, 0, 0, 0)
        try:
            os.close(sys.program_load("probe", code, loader.LICENSE_NAME))
        except sys.VerifierError as error:
            if any(words in error.log for words in ("unknown func", "invalid func", "cannot use helper")):
                return Check("socket assignment", State.MISSING, f"helper {helper}", "Linux 5.7 or newer is needed")
            if not error.log:
                return Check("socket assignment", State.UNKNOWN, "not permitted", "run as root")
        except OSError as error:
            return Check("socket assignment", State.UNKNOWN, str(error.strerror), "run as root")
    return Check("socket assignment", State.OK)


def _transparent() -> Check:
    def act() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)

    return _attempt("transparent sockets", act, "run as root on a kernel with CONFIG_NETFILTER")


# --- what needs a network namespace ------------------------------------------------------------------------------


def _veth() -> None:
    with nl.Netlink() as net:
        body = LINK.pack(0, 0, 0, 0, 0) + nl.text(host.IFLA_IFNAME, "probe0") + host.veth_info("probe1")
        net.change(nl.RTM_NEWLINK, body, "add a veth", nl.NLM_F_CREATE | nl.NLM_F_EXCL)


def _clsact() -> None:
    with nl.Netlink() as net:
        attach.add_clsact(net, host.LOOPBACK)


def _firewall() -> None:
    host.nft(host.NFT_TABLE, "make the table")


def _tproxy() -> None:
    rules = (host.tproxy_rule(host.ProxyPort(protocol, 1)) for protocol in host.SETS)
    host.nft(host.NFT_TABLE + "".join(rules), "make a tproxy rule")


SCRATCH: tuple[tuple[str, Callable[[], None], str], ...] = (
    ("veth", _veth, "a kernel with CONFIG_VETH is needed"),
    ("clsact", _clsact, "a kernel with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF is needed"),
    ("routing by mark", lambda: host.add_rule(socket.AF_INET), "a kernel with CONFIG_IP_MULTIPLE_TABLES is needed"),
    ("nftables", _firewall, "apt install nftables, and a kernel with CONFIG_NF_TABLES_INET and CONFIG_NFT_REJECT"),
    ("nftables tproxy", _tproxy, "a kernel with CONFIG_NFT_TPROXY is needed"),
)


def _in_scratch_namespace() -> list[Check]:
    """In a thread of its own, which leaves for a new namespace and takes it along when it ends."""
    found: list[Check] = []

    def work() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) != 0:
            text = os.strerror(ctypes.get_errno())
            found.extend(
                Check(name, State.UNKNOWN, f"no namespace to try in: {text}", "run as root") for name, *_ in SCRATCH
            )
            return
        found.extend(_attempt(name, act, remedy) for name, act, remedy in SCRATCH)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    done = {check.name for check in found}
    late = [Check(n, State.UNKNOWN, f"no answer within {PROBE_SECONDS:g} s") for n, *_ in SCRATCH if n not in done]
    return found + late


# --- what is needed to compile -----------------------------------------------------------------------------------


def _toolchain(options: Options) -> list[Check]:
    names = ("nft", "bcc", "kernel headers")
    programs = [_nft_version()]
    if loader.is_current(options) or loader.cached(options, compile.digest()) is not None:
        return programs + [Check(name, State.OK, "not needed: the programs are compiled") for name in names[1:]]
    spec = importlib.util.find_spec("bcc")
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        programs.append(Check("bcc", State.MISSING, "no module bcc", "apt install python3-bpfcc"))
    elif not (Path(places[0]) / "libbcc.py").exists():
        detail = f"{places[0]} is another project"
        programs.append(Check("bcc", State.MISSING, detail, "pip uninstall bcc; apt install python3-bpfcc"))
    else:
        programs.append(Check("bcc", State.OK, places[0]))
    headers = compile.find_headers()
    if headers:
        programs.append(Check("kernel headers", State.OK, str(headers[0])))
    else:
        programs.append(Check("kernel headers", State.MISSING, "none found", "apt install linux-headers-amd64"))
    return programs


def _nft_version() -> Check:
    path = shutil.which("nft")
    if path is None:
        return Check("nft", State.MISSING, "not in PATH", "apt install nftables")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("nft", State.UNKNOWN, str(error), "apt install --reinstall nftables")
    return Check("nft", State.OK, done.stdout.strip())
