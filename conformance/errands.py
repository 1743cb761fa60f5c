"""Runs errands to Kafka brokers, from pods with real clients, and judges what they are told and the flows."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from conformance import netns
from conformance.blueprint import Pod
from conformance.cast import Cast
from conformance.errand import Errand, Job
from conformance.errand_expectation import BLOCKED, Road, expected_flows, flow_problems, outcome_problems, own_flows
from conformance.flow_log import FlowLog
from conformance.flow_view import SeenFlow, missing
from conformance.galaxy import Galaxy
from conformance.kafka_client import Order, Outcome
from conformance.report import Failure
from conformance.scenario import Run
from conformance.target import Target

PATIENCE = 5.0  # seconds a client may take for one thing that should be done
DROP_PATIENCE = 1.0  # seconds for one that should not
LIMIT = 20.0  # seconds after which a client is ended
COMPLAINT_MAX = 300
SEEN_MAX = 12  # flows that a failure shows


@dataclass(frozen=True, slots=True)
class Sent:
    """A client that was sent on an errand, and what came of it; `mark`: since when flows may tell of it."""

    errand: Errand
    road: Road
    command: tuple[str, ...]
    outcome: Outcome
    mark: int

    def flows(self, log: FlowLog) -> list[SeenFlow]:
        """Those that tell of it."""
        return own_flows(self.errand, self.road, self.outcome, log.since(self.mark))

    def failure(self, log: FlowLog) -> Failure | None:
        """What is wrong with it."""
        flows = self.flows(log)
        problems = outcome_problems(self.errand, self.outcome) + flow_problems(self.errand, self.road, flows)
        if not problems:
            return None
        seen = (f"client: {self.outcome}", *(f"flow: {flow}" for flow in flows[-SEEN_MAX:]))
        return Failure(f"errand {self.errand}", tuple(problems), seen, shlex.join(self.command))


class Errands:
    """Does what a step says, on one galaxy. A pod runs one errand after the other, for the broker's own address is a
    loopback address to all of them; pods run side by side."""

    def __init__(self, galaxy: Galaxy, cast: Cast, log: FlowLog) -> None:
        self._galaxy, self._cast, self._log = galaxy, cast, log
        self._groups = 0

    async def run(self, step: Run, patience: float) -> list[Failure]:
        """The step's failures. `patience`: seconds until an expected flow is seen."""
        pods: dict[str, list[Errand]] = {}
        for errand in step.errands:
            pods.setdefault("" if step.in_turn else errand.source, []).append(errand)
        done = await asyncio.gather(*(self._in_turn(errands, patience) for errands in pods.values()))
        return [failure for failures in done for failure in failures]

    async def _in_turn(self, errands: Sequence[Errand], patience: float) -> list[Failure]:
        failures = []
        for errand in errands:
            sent = await self._send(errand)
            await self._log.wait(partial(self._is_told, sent), patience)
            failure = sent.failure(self._log)
            failures += [failure] if failure else []
        return failures

    def _is_told(self, sent: Sent) -> bool:
        return not missing(expected_flows(sent.errand, sent.road), sent.flows(self._log))

    async def _send(self, errand: Errand) -> Sent:
        road, mark = self._road(errand), self._log.mark()
        command = self.command(errand)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LIMIT):
                out, complaint = await process.communicate()
        except BaseException as error:
            process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                return Sent(errand, road, tuple(command), Outcome(note="the client did not end"), mark)
            raise
        if process.returncode or not out:
            last = complaint.decode("utf-8", "replace").strip()[-COMPLAINT_MAX:]
            return Sent(errand, road, tuple(command), Outcome({"": "CRASHED"}, note=last), mark)
        return Sent(errand, road, tuple(command), Outcome.of(out.decode().splitlines()[-1]), mark)

    def command(self, errand: Errand, *, repeats: bool = False) -> list[str]:
        """The command line of the client; `repeats` as in Order."""
        if not errand.group and errand.job in (Job.CONSUME, Job.CONSUME_848):
            self._groups += 1  # a member of a group of its own need not wait for others
        order = Order(
            courier=errand.courier,
            job=errand.job,
            topics=errand.topics,
            advertised=self._galaxy.brokers.advertised[self._host(errand.broker)],
            remote=self._cast.remote(errand.broker, errand.family),
            group=errand.group or f"group-{self._groups}",
            client_id=errand.client_id,
            patience=DROP_PATIENCE if errand.expect in BLOCKED else PATIENCE,
            repeats=repeats,
        )
        argv = [sys.executable, "-m", "conformance.kafka_client", order.text]
        return netns.inside(self._galaxy.namespace(errand.source), argv)

    def _host(self, broker: Target) -> str:
        """The alias of the pod in which the broker runs."""
        if broker.kind != "service":
            return broker.name
        behind = self._galaxy.blueprint.service(broker.name).backends
        return next(pod.alias for pod in behind if isinstance(pod, Pod) and pod.topics)

    def _road(self, errand: Errand) -> Road:
        source_ip = self._galaxy.address(errand.source, errand.family)
        remote = self._cast.remote(errand.broker, errand.family)
        return Road(
            source=self._cast.named(errand.source) or source_ip,
            source_ip=source_ip,
            broker=self._cast.server(errand.broker, remote),
            port=remote[1],
        )
