"""A running node: everything made, wired, started, watched, and taken down again in order.

Start: what can fail because of the user first, what changes the kernel after. End (SIGINT, SIGTERM): the data path goes
first, so that nothing is redirected to a proxy that is about to go. After an internal error or `kill -9` nothing is
taken down: kernel and Envoy go on enforcing, and the next agent adopts them (law 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc

from agent import doctor
from agent.config import Config, NamesConfig
from agent.documents.policy_document import policy_document
from agent.documents.status import agent_handler
from agent.errors import EnvironmentProblem
from agent.log import configure
from agent.names.book import Rest, Sharing
from agent.names.keeping import NameKeeping
from agent.names.names import NameOptions
from agent.node import state
from agent.node.cluster_side import ClusterSide
from agent.node.debounce import until_quiet
from agent.node.document import FlowFacts, NodeFacts, node_document
from agent.node.kernel_events import KernelEvents, readable
from agent.node.lock import HostLock, NodeLock
from agent.node.policy_loop import Enforced, PolicyLoop
from agent.node.ports import ProxyPorts
from agent.node.proxying import NodeProxies
from agent.node.regenerate import Books, EffectFailed, Regenerator
from agent.node.remains import Remains, remains
from agent.node.wiring import KernelNames, KernelPolicy, PodPlaces, port_is_free
from agent.observing.chronicle import Chronicle
from agent.observing.hubble import HubbleApi
from agent.observing.observability import Observability
from agent.observing.telemetry import Health, Telemetry
from agent.offline import compiler_options
from agent.proxies.envoy import find_envoy
from agent.supervise import Tasks
from agent.usage.keeping import UsageKeeping
from agent.views.node_view import NodeView, labels_by_identity
from agent.views.searches import Searches
from bpf.datapath import Datapath, DatapathError
from bpf.features import reuseport_assignable
from bpf.links import Changes
from bpf.loader import Options as DatapathOptions
from bpf.loader import pinned_meta
from flows.accesslog.server import AccessLogService
from flows.account import ReaderAccount
from flows.observer import Observer
from flows.rpc.server import Server
from policies.compiling.agreement import Agreement
from policies.compiling.compiler import Compiled, Compiler, CompilerOptions
from policies.compiling.identity import IdentityAllocator
from policies.compiling.slots import SlotBook
from policies.events import ObjectEvent
from policies.inventory import Inventory
from policies.ir import NodePolicy
from policies.reading.manifests import FileEvent
from policies.repository import Repository
from policies.watch import watch_folder
from policies.world import World
from xds.options import DnsSettings, KafkaSettings
from xds.translator import Options as TranslatorOptions

STOPS = (signal.SIGINT, signal.SIGTERM)
STOP_GRACE = 0.5  # seconds that streams have when a server stops

log = logging.getLogger("deflector")


async def run_node(config: Config) -> int:
    """Run until SIGINT, SIGTERM or the end of the terminal; the exit code. Raises EnvironmentProblem when it cannot
    start."""
    configure()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    binary = find_envoy(config.envoy) if config.own_proxies else None
    await asyncio.to_thread(doctor.require, _datapath_options(config))
    lock, host = NodeLock(config.run_dir.lock), HostLock()
    _make_run_dir(config.run_dir.root)
    try:
        lock.acquire()
        host.acquire()
        return await Node(config, binary).run(stop)
    except (OSError, DatapathError) as error:  # a full disk, a device that cannot be removed: no matter for a traceback
        raise EnvironmentProblem(_in_one_line(error, config.run_dir.root)) from error
    finally:
        host.release()
        lock.release()
        _remove_if_empty(config.run_dir.root)


class Node:
    """One node's parts. `run` is its life."""

    def __init__(self, config: Config, envoy_binary: Path | None) -> None:
        self._config = config
        self._version = importlib.metadata.version("deflector")
        self._tasks = Tasks()
        self._datapath = Datapath(_datapath_options(config))
        self._cluster = ClusterSide(config) if config.cluster is not None else None
        self._places = PodPlaces(config.node_name if config.cluster is not None else "")
        self._state, self._identities, self._books = self._restore()
        kernel_names = KernelNames(self._datapath)
        self._names = NameKeeping(_name_options(config.names), config.run_dir.names, kernel_names, wake=self._resume)
        self._compiler = Compiler(self._identities, _compiler_options(config), self._names.names)
        self._former = Remains()
        self._had_files = self._state is not None and bool(self._state.identities.get("identities"))
        self._searches = Searches(time.monotonic_ns)
        self._view = NodeView(config.flow_node_name, World(), NodePolicy(revision=0), {}, searches=self._searches)
        ring, redaction = config.hubble_ring, config.observability.redaction
        self._observer = Observer(lambda: self._view, version=self._version, capacity=ring, redaction=redaction)
        self._proxies = NodeProxies(config, envoy_binary, self._observer, self._names.learned)
        self._chronicle = Chronicle(self._observer.agent_event, time.time_ns)
        self._events = KernelEvents(self._datapath, self._observer, lambda count: self._observability.lost(count))
        self._hubble = HubbleApi(config, self._observer)
        self._hubble_server: Server | None = None
        self._telemetry = Telemetry(self._health)
        self._usage = UsageKeeping(self._observer, lambda: self._view)
        self._policy: PolicyLoop | None = None
        about, collectors = (config.flow_node_name, self._version), (self._telemetry, self._usage.collector)
        follow, rest = self._observer.flows, self._observer.rest
        self._observability = Observability(config.observability, about, follow, collectors, rest=rest)

    async def run(self, stop: asyncio.Event) -> int:
        async with self._servers(), self._cluster or contextlib.nullcontext():
            await self._open_datapath()
            try:
                self._start_work()
                failure = await self._until(stop)
            except BaseException:
                await self._tasks.stop()
                raise
            await self._tasks.stop()
            if failure is not None:
                log.error("internal error, enforcement goes on without this agent", exc_info=failure)
                self._datapath.close()
                return 1
            if self._config.stays:
                log.info("ending; what is enforced stays in force ('deflector bpf unload' takes it out)")
                self._datapath.close()
            else:
                await self._take_down()
            return 0

    async def _until(self, stop: asyncio.Event) -> BaseException | None:
        """Wait for the signal (None) or for the first task that fails (its exception)."""
        async with asyncio.TaskGroup() as group:
            failed = group.create_task(self._tasks.failed())
            stopped = group.create_task(stop.wait())
            await asyncio.wait((failed, stopped), return_when=asyncio.FIRST_COMPLETED)
            failed.cancel()
            stopped.cancel()
        return failed.result() if failed.done() and not failed.cancelled() else None

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[None]:
        """Hubble's addresses first: a busy port is the user's affair and must change nothing."""
        files = self._config.run_dir
        hubble = self._hubble_server = await self._hubble.start()
        proxies = grpc.aio.server()
        self._proxies.register(proxies)
        AccessLogService(self._observer.access_log).register(proxies)
        proxies.add_insecure_port(f"unix://{files.xds_socket}")
        agent = grpc.aio.server()
        agent.add_generic_rpc_handlers(
            (agent_handler(self._document, self._policy_document, self._usage.document, self._names_document),)
        )
        agent.add_insecure_port(f"unix://{files.agent_socket}")
        servers = (hubble, proxies, agent)
        try:
            await proxies.start()
            await agent.start()
            yield
        finally:
            await asyncio.gather(*(server.stop(STOP_GRACE) for server in servers), self._observability.stop())
            for path in (files.hubble_socket, files.xds_socket, files.agent_socket):
                path.unlink(missing_ok=True)

    async def _open_datapath(self) -> None:
        inherited = pinned_meta(self._datapath.options) is not None
        try:
            loaded = await asyncio.to_thread(self._datapath.open)
        except DatapathError as error:
            if not inherited:  # no earlier agent's work is in force: take away what there is of ours
                with contextlib.suppress(DatapathError):
                    await asyncio.to_thread(self._datapath.cleanup)
            raise EnvironmentProblem(str(error)) from None
        log.info("data path: programs %s", loaded.programs)
        if self._state is None:
            self._respect(remains(self._datapath.realized))

    def _respect(self, former: Remains) -> None:
        """An earlier agent's entries are in force, but its books are lost: use none of its numbers."""
        if not former:
            return
        log.warning(
            "%s is missing or unusable while an earlier agent's policy is in force: it stays until all is programmed "
            "anew, with other numbers; connections through the proxy are cut",
            self._config.run_dir.state,
        )
        self._former = former
        self._had_files = True
        self._identities = IdentityAllocator(behind=former.highest, agreement=self._agreement())
        self._compiler = Compiler(self._identities, _compiler_options(self._config), self._names.names)

    def _start_work(self) -> None:
        """Everything that runs for as long as the node does."""
        config = self._config
        self._names.open(self._compiler.fqdns)
        dns = _dns_settings(config.names)
        kafka = KafkaSettings(config.modes.kafka_hide_topics)
        options = TranslatorOptions(reuse_port=reuseport_assignable(), ipv6=_has_ipv6(), dns=dns, kafka=kafka)
        proxies = self._proxies.start(self._tasks, options, self._resume)
        kernel = KernelPolicy(self._datapath)
        regenerator = Regenerator(
            proxies,
            kernel,
            self._books,
            save=self._save,
            is_free=lambda protocol, port: port not in self._former.ports and port_is_free(protocol, port),
            now=time.monotonic,
            ack_timeout=config.ack_timeout,
        )
        hear = (self._on_enforced, self._telemetry.propagated)
        store = Inventory() if self._cluster is not None else Repository()
        self._policy = PolicyLoop(regenerator, self._compile, *hear, on_failed=self._on_failed, store=store)
        self._chronicle.started()
        self._tasks.start("objects", self._policy.watch(self._batches()))
        self._tasks.start("policy", self._policy.run())
        self._tasks.start("usage of rules", self._usage.run())
        self._tasks.start("names", self._names.run())
        self._tasks.start("kernel events", self._events.follow())
        self._tasks.start("links", self._follow_links(kernel, self._policy))
        self._observability.start(self._tasks)

    def _batches(self) -> AsyncIterator[Sequence[FileEvent]] | AsyncIterator[Sequence[ObjectEvent]]:
        """What becomes of objects: in a folder, or at an API server."""
        if self._cluster is not None:
            self._cluster.start(self._tasks)
            return self._cluster.batches()
        assert self._config.manifests is not None
        quiet_ms = max(1, round(self._config.quiet * 1000))
        return watch_folder(self._config.manifests, quiet_ms, had_files=self._had_files)

    async def _take_down(self) -> None:
        log.info("stopping: removing devices, rules, routes, programs and maps")
        await asyncio.to_thread(self._datapath.cleanup)
        await self._proxies.stop()
        self._names.close()
        for path in (self._config.run_dir.state, self._config.run_dir.names):
            path.unlink(missing_ok=True)

    # Policy

    def _compile(self, world: World, revision: int) -> Compiled:
        local, own = self._places.local(world), self._places.host_addresses()
        compiled = self._compiler.compile(world, local, own, revision)
        self._names.compiled()
        return compiled

    def _resume(self) -> None:
        """A late proxy has answered."""
        if self._policy is not None:
            self._policy.wake()

    def _on_enforced(self, world: World, node: NodePolicy) -> None:
        self._names.enforced(node)
        self._proxies.answer_lessons()
        labels = self._labels(node)
        self._view = NodeView(
            self._config.flow_node_name,
            world,
            node,
            labels,
            searches=self._searches,
            names=self._names,
            before=self._view,
        )
        self._chronicle.enforced(world, node)
        self._hubble.take(world, self._places.host_addresses())
        self._observability.take_pods(world.pods)
        if self._cluster is not None:
            self._cluster.enforced(world, node, self._identities.labels)
            if self._policy is not None:
                self._cluster.report(self._policy.enforced)

    def _on_failed(self, why: str) -> None:
        self._chronicle.failed(why)
        if self._cluster is not None and self._policy is not None:
            self._cluster.report(self._policy.enforced)

    def _labels(self, node: NodePolicy) -> Mapping[int, tuple[str, ...]]:
        return labels_by_identity(self._identities, node, self._compiler.fqdns.numbers)

    # State

    def _restore(self) -> tuple[state.NodeState | None, IdentityAllocator, Books]:
        ports = ProxyPorts(*self._config.proxy_ports)
        stored, complaint = state.load(self._config.run_dir.state)
        try:
            if stored is not None:
                identities = IdentityAllocator.from_dict(stored.identities, self._agreement())
                return stored, identities, Books(SlotBook.from_dict(stored.slots), ports.restored(stored.ports))
        except (ValueError, KeyError, TypeError) as error:
            complaint = f"{self._config.run_dir.state} contradicts itself ({error}): starting afresh"
        if complaint:
            log.warning("%s", complaint)
        return None, IdentityAllocator(agreement=self._agreement()), Books(SlotBook(), ports)

    def _agreement(self) -> Agreement | None:
        """With an API server, numbers are those that all nodes have."""
        return Agreement() if self._config.cluster is not None else None

    def _save(self, books: Books) -> None:
        wanted = state.NodeState(self._identities.to_dict(), books.slots.to_dict(), books.ports.to_dict())
        if wanted != self._state:
            try:
                state.save(self._config.run_dir.state, wanted)
            except OSError as error:  # nothing may be enforced that the next agent would not know of
                raise EffectFailed(f"cannot write {self._config.run_dir.state}: {error.strerror}") from error
            self._state = wanted

    # Kernel

    async def _follow_links(self, kernel: KernelPolicy, policy: PolicyLoop) -> None:
        changes, config = Changes(), self._config
        try:
            async for _ in readable(changes.fileno()):
                if changes.drain():
                    await until_quiet(changes.drain, config.quiet, config.hold)
                    if changes.moved():  # filters are our own, mostly: no reason to look for every pod's device again
                        self._places.forget()
                    kernel.doubt()
                    policy.wake()
        finally:
            changes.close()

    # Status

    def _policy_document(self, namespace: str, name: str) -> dict[str, Any] | None:
        """What is enforced on a pod of this node."""
        node = (self._policy.enforced if self._policy else Enforced()).node
        return policy_document(node, self._labels(node), namespace, name)

    async def _names_document(self) -> Mapping[str, Any]:
        """What pods of this node have learned of names."""
        return await self._names.document(
            self._policy.enforced.node if self._policy else NodePolicy(0), self._view.policies
        )

    def _health(self) -> Health:
        """For the page of metrics."""
        ring, server = self._observer.ring, self._hubble_server
        enforced = self._policy.enforced if self._policy else Enforced()
        first, last = self._config.proxy_ports
        acks, nacks = self._proxies.answers
        return Health(
            version=self._version,
            revision=enforced.revision,
            complete=enforced.complete,
            pending=self._policy.pending if self._policy else True,
            problems=len(self._policy.problems) if self._policy else 0,
            endpoints=len(enforced.node.endpoints),
            slots=Counter(slot.state for slot in enforced.node.slots),
            xds_acks=acks,
            xds_nacks=nacks,
            proxies={name: (facts.restarts, facts.connected) for name, facts in self._proxies.facts().items()},
            proxy_counters=self._proxies.counters,
            names=self._names.summary,
            ports_used=len(self._proxy_ports()),
            ports=last - first + 1,
            ring_held=len(ring),
            ring_capacity=ring.capacity,
            flows=self._observer.account(),
            flows_read=sum(self._observer.reader_accounts(), ReaderAccount()),
            log_entries_malformed=self._observer.malformed,
            kernel_events=self._events.untold(),
            readers=self._observer.readers,
            connections=server.connections if server else 0,
            calls=server.calls if server else 0,
            maps=self._datapath.fullness(),
        )

    def _proxy_ports(self) -> Mapping[str, int]:
        """Proxy port by slot."""
        ports: Mapping[str, int] = (self._state.ports if self._state else {}).get("by_slot", {})
        return ports

    def _document(self) -> dict[str, Any]:
        ring, policy = self._observer.ring, self._policy
        held = (len(ring), ring.capacity, ring.flows_seen, self._events.lost)
        return node_document(
            NodeFacts(
                config=self._config,
                version=self._version,
                enforced=policy.enforced if policy else Enforced(),
                pending=policy.pending if policy else True,
                problems=[
                    *(policy.problems if policy else []),
                    *(self._cluster.problems if self._cluster else []),
                    *self._names.problems,
                ],
                ports=self._proxy_ports(),
                proxies=self._proxies.facts(),
                names=self._names.summary,
                flows=FlowFacts(*held, tuple(self._observability.troubles)),
            )
        )


def _compiler_options(config: Config) -> CompilerOptions:
    return replace(compiler_options(config.modes), node_name=config.node_name, ipv6=_has_ipv6())


def _name_options(names: NamesConfig) -> NameOptions:
    return NameOptions(
        min_ttl=names.min_ttl,
        sharing=Sharing(names.sharing),
        targets=names.targets,
        rest=Rest(idle_grace=names.idle_grace),
    )


def _dns_settings(names: NamesConfig) -> DnsSettings:
    return DnsSettings(
        rejection=names.rejection,
        hold_limit=names.hold_limit,
        release_late=names.release_late,
        targets=names.targets,
        by_endpoint=names.sharing == Sharing.ENDPOINT,
    )


def _datapath_options(config: Config) -> DatapathOptions:
    return DatapathOptions(bpffs=config.bpffs, run_dir=config.run_dir.root)


def _in_one_line(error: Exception, folder: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or folder}: {error.strerror}"
    return str(error)


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()


def _make_run_dir(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot make {path}: {error.strerror}; choose another --run-dir") from None


def _remove_if_empty(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        with contextlib.suppress(OSError):  # a mount point stays
            path.rmdir()
