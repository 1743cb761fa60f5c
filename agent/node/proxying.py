"""The proxies of a running node: their processes, how they are told, and what they tell."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc

from agent.config import Config
from agent.names.keeping import CLOCKS
from agent.names.learning import Answer, Told
from agent.names.names import Lesson
from agent.node.document import ProxyFacts
from agent.node.proxies import AdsProxies
from agent.proxies.elsewhere import Elsewhere
from agent.proxies.envoy import Envoy
from agent.proxies.own import OwnProxy
from agent.proxies.reports import Flows, Reports
from agent.proxies.supervised import Supervised
from agent.supervise import Tasks
from policies.ir import L7Parser
from xds import bootstrap
from xds.cache import SnapshotCache
from xds.consumer import Consumer
from xds.l7 import PARSERS
from xds.protos.deflector.l7.v1 import reports_pb2
from xds.server import AdsServicer
from xds.translator import Options, told_with

log = logging.getLogger("deflector")

Learned = Callable[[Iterable[Told], Answer], None]


class NodeProxies:
    """Envoy, and our own; without a binary somebody else runs them, in containers beside the agent's. `learned` takes
    what they learn of names, and answers every lesson that has a number."""

    def __init__(self, config: Config, envoy_binary: Path | None, flows: Flows, learned: Learned) -> None:
        files = config.run_dir
        self._config = config
        proxies = {parser: Consumer(SnapshotCache()) for parser in L7Parser if told_with(parser) is parser}
        self._consumers = {parser: proxies[told_with(parser)] for parser in L7Parser}
        self.envoy: Envoy | Elsewhere = Elsewhere()
        if envoy_binary is not None:
            self.envoy = Envoy(envoy_binary, files, config.envoy_concurrency, log.info)
        self.own = {
            parser: OwnProxy(name, files, config.node_name, log.info, *_options(config, parser))
            for name, parser in sorted(PARSERS.items())
        }
        self._reports = Reports(flows, lambda lessons, answer: learned(map(_told, lessons), answer))

    def register(self, server: grpc.aio.Server) -> None:
        """On the server of xds.sock."""
        by_cluster = {name: self._consumers[parser] for name, parser in PARSERS.items()}
        by_cluster[bootstrap.NODE_CLUSTER] = self._consumers[L7Parser.HTTP]
        servicer = AdsServicer(self._config.node_name, by_cluster)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(servicer, server)
        server.add_generic_rpc_handlers((self._reports.handler(),))

    def start(self, tasks: Tasks, options: Options, on_progress: Callable[[], None]) -> AdsProxies:
        """Their processes; and how the slots of a node are told."""
        self._write_bootstrap()
        tasks.start("envoy", self.envoy.run())
        for parser, proxy in self.own.items() if self._config.own_proxies else ():
            tasks.start(f"proxy of {parser}", proxy.run())
        return AdsProxies(self._consumers, options, on_progress, self._need)

    def answer_lessons(self) -> None:
        """Names are in force as an earlier agent had left them: who learns may be told so."""
        self._reports.open()

    async def stop(self) -> None:
        """End them all, and leave nothing of theirs behind."""
        await self.envoy.stop()
        self._config.run_dir.envoy_log.unlink(missing_ok=True)
        for proxy in self.own.values():
            await proxy.stop()
            proxy.forget()

    @property
    def counters(self) -> Mapping[tuple[str, str], int]:
        """(proxy, what) -> how often, as our own proxies count."""
        return self._reports.counters

    @property
    def answers(self) -> tuple[int, int]:
        """ACKs and NACKs of all proxies since the start."""
        consumers = set(self._consumers.values())
        return sum(one.acks for one in consumers), sum(one.nacks for one in consumers)

    def facts(self) -> dict[str, ProxyFacts]:
        """Of each, by the name that status has for it."""
        processes: dict[str, tuple[L7Parser, Supervised | Elsewhere]] = {"envoy": (L7Parser.HTTP, self.envoy)}
        processes.update({name: (parser, self.own[parser]) for name, parser in sorted(PARSERS.items())})
        return {
            name: ProxyFacts(
                process.pid,
                process.restarts,
                self._consumers[parser].is_connected,
                needed=process.is_needed if isinstance(process, OwnProxy) else True,
            )
            for name, (parser, process) in processes.items()
        }

    def _need(self, parsers: Collection[L7Parser]) -> None:
        for parser, proxy in self.own.items():
            proxy.need(parser in parsers)

    def _write_bootstrap(self) -> None:
        files = self._config.run_dir
        text = bootstrap.bootstrap(self._config.node_name, str(files.xds_socket), str(files.admin_socket))
        files.envoy_bootstrap.write_text(text)


def _options(config: Config, parser: L7Parser) -> tuple[str, ...]:
    return ("--workers", str(config.dns_workers)) if parser is L7Parser.DNS else ()


def _told(one: reports_pb2.Learned) -> Told:
    at = CLOCKS.now() - one.age_ms / 1000
    lesson = Lesson(one.name, tuple(one.addresses), one.ttl, at, tuple(one.targets))
    return Told(one.number, one.pod, lesson)


def nobody_learns(lessons: Iterable[Told], answer: Answer) -> None:
    """Where no policy opens addresses by name there is nothing to wait for."""
    answer([told.number for told in lessons if told.number], [])
