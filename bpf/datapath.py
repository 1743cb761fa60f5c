"""The data path as the agent sees it: load or adopt, apply entries, attach pods, read events, clean up.

A dull shell over loader, host, attach, maps and ringbuf. Every call is synchronous; all but open() and cleanup() take
milliseconds at most. The network namespace is that of the calling thread.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys as python
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from bpf import attach as hooks
from bpf import host, loader, sys
from bpf.attach import Hook
from bpf.changes import Ops, Step, diff
from bpf.constants import Counter
from bpf.entries import Desired
from bpf.host import ProxyPort
from bpf.layout import CAPACITY, PROGRAMS, RING_BYTES
from bpf.links import link_by_index, link_by_name
from bpf.live import connected
from bpf.loader import Loaded, LoadError, Options
from bpf.maps import SPECS, Maps, MapsError, Metric
from bpf.netlink import NetlinkError
from bpf.peers import Peers
from bpf.redirects import DoesNotFit, desired
from bpf.ringbuf import Ring
from policies.ir import NodePolicy

LOAD_SECONDS = 120.0  # compiling takes 2 s on an idle core
HOOKS = ((Hook.INGRESS, "from_pod"), (Hook.EGRESS, "to_pod"))


class DatapathError(Exception):
    """The data path cannot do what was asked; the message is one line that says what and what to do."""


@dataclass(frozen=True, slots=True)
class ProgramCost:
    """Run-time statistics of one program since it was loaded (counted while statistics are on)."""

    name: str
    run_time_ns: int
    run_count: int


class Datapath:
    """One node's data path. open() first; close() leaves everything in force, cleanup() removes it."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()
        self._maps: Maps | None = None
        self._ring: Ring | None = None
        self._programs: dict[str, int] = {}
        self._peers: Peers | None = None
        self._realized: Desired | None = None
        self._refreshed = False

    # --- life ---

    def open(self) -> Loaded:
        """Load what is missing, adopt what is there, set up the host. DatapathError when it cannot be."""
        try:
            loaded = self._load()
            self._maps = Maps(self.options.pins)
            self._programs = {name: sys.object_get(self.options.pins / name) for name in PROGRAMS}
            self._ring = Ring(self._maps.fd("events"), RING_BYTES)
            self._set_up_host()
            self._realized = self._maps.realized()
            self._peers = Peers(self._maps, self._realized.ipcache)
        except (LoadError, host.HostError, OSError) as error:
            self.close()
            raise DatapathError(f"data path: {error}") from error
        return loaded

    def _set_up_host(self) -> None:
        helper = host.setup(host.Record.read(self.options.record), self.options.device)
        self.maps.set_helper(helper)
        self._attach(helper, Hook.INGRESS, "to_proxy")

    def repair(self, pods: Iterable[int]) -> set[int]:
        """Put back what somebody has removed of the helper, rules, routes and table, and of the filters of these
        interfaces; returns those that are still there. Changes nothing where nothing is missing."""
        try:
            attached = {ifindex for ifindex in pods if self._is_attached_again(ifindex)}
            self._set_up_host()
        except (host.HostError, OSError) as error:
            raise DatapathError(f"data path: {error}") from error
        return attached

    def _is_attached_again(self, ifindex: int) -> bool:
        try:
            self.attach(ifindex)
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
            return False
        return True

    def _load(self) -> Loaded:
        """In a process of its own: bcc must not stay in the agent's memory."""
        if loader.is_current(self.options):
            return Loaded("adopted", 0, "")
        paths = {
            "--bpffs": self.options.bpffs,
            "--run-dir": self.options.run_dir,
            "--cache-dir": self.options.cache_dir,
        }
        command = [python.executable, "-m", "bpf.loader", *(str(word) for pair in paths.items() for word in pair)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise LoadError(f"loading took longer than {LOAD_SECONDS:g} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise LoadError(lines[-1].removeprefix("bpf load: ") if lines else "the loader died")
        return Loaded(**json.loads(done.stdout))

    def close(self) -> None:
        """Close descriptors. The kernel goes on enforcing what it has."""
        if self._ring is not None:
            self._ring.close()
        if self._maps is not None:
            self._maps.close()
        for fd in self._programs.values():
            os.close(fd)
        self._ring, self._maps, self._programs, self._realized = None, None, {}, None
        self._peers = None
        self._refreshed = False

    # --- policy ---

    @property
    def maps(self) -> Maps:
        if self._maps is None:
            raise DatapathError("data path: not open")
        return self._maps

    @property
    def events(self) -> Ring:
        """For add_reader and read()."""
        if self._ring is None:
            raise DatapathError("data path: not open")
        return self._ring

    @property
    def realized(self) -> Desired:
        """What the kernel holds of the policy, as far as we know; read from it, with what names say, when we do not."""
        if self._realized is None:
            self._realized = self.maps.realized()
        return self._realized

    def program(self, node: NodePolicy, ports: Mapping[str, int]) -> tuple[str, ...]:
        """Make the kernel hold this policy; `ports` is slot name -> proxy port. Returns a line for each thing that the
        maps have no room for and that is closed instead. DatapathError as apply()."""
        try:
            wanted = desired(node, ports, self.realized)
        except DoesNotFit as error:
            raise DatapathError(f"data path: {error}") from error
        self.apply(wanted)
        return wanted.closed

    def apply(self, wanted: Desired) -> Ops:
        """Make it so; returns what changed. DatapathError if a map refuses: the next call starts from what is there.

        The first call after open() also brings the programs up to date that an earlier agent attached: only now are
        there entries in the maps that today's programs read.
        """
        ops = diff(wanted, self.realized)
        self._realized = None
        self.peers.follow(wanted.ipcache)
        try:
            additions = [step for step in ops.steps if step.values]
            for step in additions:
                self._take(step)
            self.peers.take_staged()
            for step in ops.steps[len(additions) :]:
                self._take(step)
        except MapsError as error:  # every lookup gives what the old or the new policy says (see changes)
            raise DatapathError(f"data path: {error}") from error
        finally:
            self.maps.judge_anew()
        self._realized = wanted
        if not self._refreshed:
            for ifindex in self.attached():
                self.attach(ifindex)
            self._refreshed = True
        return ops

    def _take(self, step: Step) -> None:
        (self.peers if step.map == "ipcache" else self.maps).take(step)

    # --- names ---

    @property
    def peers(self) -> Peers:
        if self._peers is None:
            raise DatapathError("data path: not open")
        return self._peers

    def learn(self, lives: Mapping[bytes, int]) -> None:
        """Packed addresses (4 or 16 bytes) that DNS answers have given to names -> their identities: in force when this
        returns, and until forget(), whatever program() is told. A pod's address, a node's and the host's stay theirs.
        An address as one endpoint knows it (bpf.encoding.owned) is that for it alone, where it connects.

        For any thread, also while another is in program(). What an earlier agent has learned must be learned again
        before the first program(), which takes everything else away. DatapathError where the map has no room."""
        try:
            self.peers.learn(lives)
        except MapsError as error:
            raise DatapathError(f"data path: {error}") from error

    def forget(self, addresses: Iterable[bytes]) -> None:
        """These addresses belong to no name any more. For any thread, as learn()."""
        try:
            self.peers.forget(addresses)
        except MapsError as error:
            raise DatapathError(f"data path: {error}") from error

    def stage(self, lives: Mapping[bytes, int | None]) -> None:
        """As learn(), or (None) forget(), but with the next policy that is programmed: after whatever it adds, and
        before it takes anything away, so that an address may go from an identity that is no more to one that is new."""
        self.peers.stage(lives)

    def connected(self, addresses: Collection[bytes]) -> dict[bytes, set[int]]:
        """Which of these packed addresses pods have opened connections to: address -> ids of the endpoints. For a
        thread of its own: other threads run in between, but it takes up to 0.2 s. DatapathError if it cannot."""
        try:
            return connected(self.maps.fd("ct"), SPECS["ct"], addresses)
        except OSError as error:
            raise DatapathError(f"data path: {error}") from error

    # --- proxies ---

    def set_proxy_ports(self, places: Iterable[ProxyPort]) -> None:
        """Refuse what goes straight to these ports."""
        try:
            host.set_proxy_ports(places)
        except host.HostError as error:
            raise DatapathError(f"data path: {error}") from error

    # --- pods ---

    def attach(self, ifindex: int) -> None:
        """Put the programs on a pod's veth. Write its endpoint entry first: without one nothing passes."""
        link = link_by_index(ifindex)
        self.maps.set_namespace(ifindex, link.peer_namespace if link is not None else None)
        for hook, name in HOOKS:
            self._attach(ifindex, hook, name)

    def _attach(self, ifindex: int, hook: Hook, name: str) -> None:
        wanted = sys.program_info(self._programs[name]).id
        if not any(f.is_ours and f.program == wanted for f in hooks.filters(ifindex, hook)):
            hooks.attach(ifindex, hook, self._programs[name], name)

    def detach(self, ifindex: int) -> None:
        """Take the programs off; a device that is gone is no error."""
        hooks.detach(ifindex)
        self.maps.set_namespace(ifindex, None)

    def attached(self) -> list[int]:
        """Interfaces with a program of ours, without the helper."""
        helper = link_by_name(self.options.device)
        return [index for index in hooks.attached() if helper is None or index != helper.index]

    # --- what it counts ---

    def metrics(self) -> list[Metric]:
        return self.maps.metrics()

    def counters(self) -> dict[Counter, int]:
        return self.maps.counters()

    def fullness(self) -> dict[str, tuple[int, int]]:
        """Entries that the agent has written into each of its maps, and how many it may; none while that changes."""
        known = self._realized
        if known is None:
            return {}
        held = {name: len(getattr(known, name)) for name in CAPACITY}
        held["ipcache"] += self.peers.learned
        held["policy"] = sum(group.count for group in known.policy.values())
        return {name: (held[name], room) for name, room in CAPACITY.items()}

    def program_costs(self) -> list[ProgramCost]:
        """Take the difference of two calls, with sys.enable_stats() held open in between."""
        infos = {name: sys.program_info(fd) for name, fd in self._programs.items()}
        return [ProgramCost(name, info.run_time_ns, info.run_count) for name, info in infos.items()]

    # --- the end ---

    def cleanup(self) -> None:
        """Remove every device, rule, route, table, filter, program and map of ours. Idempotent; needs no open()."""
        self.close()
        cleanup(self.options)


def cleanup(options: Options) -> None:
    """Leave nothing behind, also of an agent that was killed. DatapathError when something cannot be removed."""
    try:
        for ifindex in hooks.attached():
            hooks.detach(ifindex)
        record = host.Record.read(options.record)
        host.teardown(record, options.device)
        record.save()
        loader.unpin(options)
        loader.unmount_bpffs(options)
        options.record.unlink(missing_ok=True)
        (options.run_dir / "bpf.lock").unlink(missing_ok=True)
    except (LoadError, host.HostError, OSError) as error:
        raise DatapathError(f"cleaning up the data path: {error}") from error
