"""What a node puts into its network namespace and its folders, as text that can be compared: a node that ends must
leave no device, rule, route, program, map or process behind. Reads only.
"""

from __future__ import annotations

import os
from pathlib import Path

from conformance import netns
from conformance.galaxy import NODE, Galaxy

# Facts about the namespace, and the command that prints them
COMMANDS = {
    "device": ["ip", "-o", "link"],
    "address": ["ip", "-o", "address"],
    "rule": ["ip", "rule"],
    "IPv6 rule": ["ip", "-6", "rule"],
    "route": ["ip", "route", "show", "table", "all"],
    "packet filter": ["nft", "list", "ruleset"],
    "queueing discipline": ["tc", "qdisc"],
}

KERNEL_OWN = ".debug"  # maps.debug and progs.debug: the kernel's own iterators in every BPF filesystem


def footprint(galaxy: Galaxy) -> set[tuple[str, str]]:
    """Everything that is there now, as (kind, line)."""
    namespace = galaxy.namespace(NODE)
    found = set()
    for kind, argv in COMMANDS.items():
        found |= {(kind, line.strip()) for line in netns.tool(netns.inside(namespace, argv)).splitlines()}
    for pod in galaxy.blueprint.local_pods:
        for hook in ("ingress", "egress"):
            filters = netns.tool(netns.inside(namespace, ["tc", "filter", "show", "dev", pod.host_device, hook]))
            found |= {("program", f"{pod.host_device} {hook} {line.strip()}") for line in filters.splitlines()}
    found |= {("process", _name(pid)) for pid in netns.processes_in(namespace)}
    found |= {("pinned object", str(path)) for path in galaxy.bpffs.rglob("*") if path.suffix != KERNEL_OWN}
    return found


def left_behind(before: set[tuple[str, str]], after: set[tuple[str, str]]) -> list[str]:
    """What is there now and was not before, and what is missing, in words, sorted."""
    return [f"{kind} left behind: {line}" for kind, line in sorted(after - before)] + [
        f"{kind} gone or changed: {line}" for kind, line in sorted(before - after)
    ]


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return f"{pid}"
    return f"{pid} {os.fsdecode(b' '.join(words[:3]))}"
