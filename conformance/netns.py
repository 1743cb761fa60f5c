"""Network namespaces: make, enter, list and remove them. Touches /run/netns and the calling thread's namespace only.

A namespace is entered with setns or `nsenter --net=`, so that mounts stay shared; `ip netns exec` would give the
command a mount namespace of its own with another /sys, where a BPF filesystem mounted later is not seen.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conformance.errors import EnvironmentFailure

CLONE_NEWNET = 0x40000000
NETNS_DIR = Path("/run/netns")
TOOL_TIMEOUT = 10.0  # seconds that ip, nft and nsenter may take

_libc = ctypes.CDLL(None, use_errno=True)


def inside(namespace: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs argv in the network namespace; an empty name is the namespace we are in."""
    return ["nsenter", f"--net={NETNS_DIR / namespace}", *argv] if namespace else list(argv)


def tool(argv: Sequence[str], stdin: str = "") -> str:
    """Run a tool to its end and return its stdout. Raises EnvironmentFailure with its complaint in one line."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=TOOL_TIMEOUT, check=False)
    except FileNotFoundError:
        raise EnvironmentFailure(f"{argv[0]} is not installed: run 'make setup'") from None
    except subprocess.TimeoutExpired:
        raise EnvironmentFailure(f"'{' '.join(argv)}' did not end within {TOOL_TIMEOUT:.0f} s") from None
    if done.returncode:
        complaint = " / ".join(done.stderr.split("\n")[:3]).strip(" /") or f"exit code {done.returncode}"
        raise EnvironmentFailure(f"'{' '.join(argv)}' failed: {complaint}")
    return done.stdout


def ip_batch(namespace: str, lines: Sequence[str]) -> None:
    """Run lines of iproute2 in one process inside the namespace."""
    tool(inside(namespace, ["ip", "-batch", "-"]), "\n".join(lines) + "\n")


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Move the calling thread into the namespace for the block. Nothing may await or start a thread in it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NETNS_DIR / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def socket_in(
    namespace: str, family: socket.AddressFamily, kind: socket.SocketKind, protocol: int = 0
) -> socket.socket:
    """A socket that belongs to the namespace for good, whoever uses it later; an empty name is where we are."""
    if not namespace:
        return socket.socket(family, kind, protocol)
    with entered(namespace):
        return socket.socket(family, kind, protocol)


def write_sysctls(namespace: str, values: dict[str, str]) -> None:
    """Set sysctls of the namespace; keys are paths below /proc/sys/net with slashes, e.g. ipv4/ip_forward."""
    with entered(namespace):
        for key, value in values.items():
            try:
                Path("/proc/sys/net", key).write_text(value)
            except OSError as error:
                raise EnvironmentFailure(f"sysctl net/{key}={value} is refused: {error.strerror}") from None


def existing(prefix: str) -> list[str]:
    """Names of the namespaces that start with the prefix, sorted."""
    if not NETNS_DIR.is_dir():
        return []
    return sorted(entry.name for entry in NETNS_DIR.iterdir() if entry.name.startswith(prefix))


def processes_in(namespace: str) -> list[int]:
    """Ids of the processes that live in the namespace (and not merely hold it open)."""
    try:
        wanted = os.stat(NETNS_DIR / namespace).st_ino
    except FileNotFoundError:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            if os.stat(f"/proc/{entry}/ns/net").st_ino == wanted:
                found.append(int(entry))
        except OSError:
            continue  # it has gone, or is a zombie
    return sorted(found)


def remove(names: Sequence[str]) -> None:
    """Kill what lives in the namespaces and unlink them. Never fails for what has gone already."""
    for name in names:
        for pid in processes_in(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    present = set(existing(""))
    doomed = [name for name in names if name in present]
    if doomed:
        tool(["ip", "-force", "-batch", "-"], "".join(f"netns delete {name}\n" for name in doomed))


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
