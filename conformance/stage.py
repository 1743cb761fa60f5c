"""Plays scenarios on a site (conformance.site), and judges what is seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from conformance.cast import Cast
from conformance.errands import Errands
from conformance.errors import EnvironmentFailure, NotEnforced
from conformance.expectation import Answer, Parties, answer_problems, expected_flows, flow_problems, own_flows
from conformance.flow_log import FlowLog
from conformance.flow_view import SeenFlow, missing
from conformance.galaxy import NODE, Galaxy
from conformance.inquiries import Inquiries
from conformance.live import AFTER_MIN, Change, Loop, judge
from conformance.live_courier import LiveCourier
from conformance.local_site import LocalSite
from conformance.manifests import policy_file
from conformance.node import Node
from conformance.probes import PATIENCE, Call
from conformance.report import Failure, ScenarioResult
from conformance.scenario import (
    Apply,
    Ask,
    Close,
    Command,
    Open,
    Order,
    Policy,
    Probe,
    Refuse,
    Remove,
    Rename,
    Request,
    Resolve,
    Run,
    Scenario,
    Settle,
    Sneak,
    Step,
    Stream,
    Suite,
    Traffic,
)
from conformance.site import Connection, Site
from conformance.target import Target
from conformance.tricks import flow_faults, flows_missing, own, try_all

SEEN_MAX = 8  # flows that a failure shows


@dataclass(slots=True)
class Asked:
    """A call that was made, its answer, and since when flows may tell of it; `ok`: nothing was wrong so far."""

    call: Call
    parties: Parties
    answer: Answer
    mark: int
    ok: bool = True


@dataclass(slots=True)
class Act:
    """What one scenario has open while it is played."""

    tasks: asyncio.TaskGroup
    connections: dict[str, tuple[Connection, Open]] = field(default_factory=dict)
    loops: dict[str, list[Loop]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    checks: int = 0
    change: Change = field(default_factory=lambda: Change(0.0, 0.0))
    renamed: bool = False


class Stage:
    """One site, one log of flows: shared by all scenarios of a suite, which run one after the other.

    What is done to the node itself, and what needs servers of ours in its network, is for a galaxy of this machine.
    """

    def __init__(self, suite: Suite, site: Site, log: FlowLog) -> None:
        self._suite, self._site, self._log = suite, site, log
        self._cast = Cast(site.place)
        self._runner: Errands | None = None

    @property
    def _local(self) -> LocalSite:
        if not isinstance(self._site, LocalSite):
            raise EnvironmentFailure("this step needs a galaxy of this machine")
        return self._site

    @property
    def _galaxy(self) -> Galaxy:
        return self._local.galaxy

    @property
    def _node(self) -> Node:
        return self._local.node

    @property
    def _errands(self) -> Errands:
        if self._runner is None:
            self._runner = Errands(self._galaxy, self._cast, self._log)
        return self._runner

    async def play(self, scenario: Scenario) -> ScenarioResult:
        """Set the scenario's policies, go through its steps, and tell what came of it."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            act = Act(tasks)
            step: Step | None = None
            try:
                await self._set_scene(scenario)
                for step in scenario.steps:
                    await self._perform(act, step)
                self._look_again(act)
            except (NotEnforced, EnvironmentFailure, OSError) as error:
                act.failures.append(Failure(_spell(step), (str(error),)))
            finally:
                _strike(act)
        if act.renamed:
            await asyncio.to_thread(self._galaxy.nameservers.rename, self._galaxy.blueprint.names)
        if self._log.broken:
            act.failures.append(Failure("the stream of flows", (self._log.broken,)))
        log = tuple(await self._site.log_tail()) if act.failures else ()
        seconds = time.monotonic() - begun
        return ScenarioResult(
            name=scenario.name,
            title=scenario.title,
            level=scenario.level,
            seconds=seconds,
            checks=act.checks,
            failures=tuple(act.failures),
            log=log,
        )

    async def _set_scene(self, scenario: Scenario) -> None:
        if scenario.flags != self._site.flags:
            await self._restart(scenario.flags)
        await self._site.keep(self._policies(scenario.policies))

    async def _restart(self, flags: tuple[str, ...]) -> None:
        """The node with other flags, and without policies: those of the scenario before are not meant for it."""
        for name in self._galaxy.manifests.policies():
            self._galaxy.manifests.remove(name)
        problems = await self._node.stop()
        if problems:
            raise EnvironmentFailure(f"the node could not be stopped in order: {'; '.join(problems)}")
        self._node.flags = flags
        await self._node.start()
        self._log.connect()

    def _policies(self, names: Sequence[str]) -> list[Policy]:
        return [self._suite.policies[name] for name in names]

    async def _perform(self, act: Act, step: Step) -> None:
        match step:
            case Apply():
                await self._change(act, self._site.apply(self._policies(step.policies)))
            case Remove():
                await self._change(act, self._site.remove([one.object for one in self._policies(step.policies)]))
            case Refuse():
                await self._refuse(act, step)
            case Ask():
                await self._ask(act, step)
            case Resolve():
                inquiries = Inquiries(self._galaxy, self._cast, self._log)
                act.failures += await inquiries.ask(step, self._site.flow_patience)
                act.checks += len(step.questions)
            case Run():
                act.failures += await self._errands.run(step, self._site.flow_patience)
                act.checks += len(step.errands)
            case Stream():
                await self._stream(act, step)
            case Rename():
                await self._rename(act, step)
            case Open():
                call = self._cast.opening(step)
                act.connections[step.name] = (await self._site.connect(call), step)
            case Close():
                act.connections.pop(step.name)[0].close()
            case Traffic():
                await self._traffic(act, step)
            case Settle():
                await self._settle(act, step)
            case Sneak():
                await self._sneak(act, step)
            case Command():
                await self._command(act, step)

    async def _change(self, act: Act, effect: Awaitable[None]) -> None:
        begun = time.monotonic()
        await effect
        act.change = Change(begun, time.monotonic())

    async def _rename(self, act: Act, step: Rename) -> None:
        changed = {name.name: name for name in step.names}
        act.renamed = True
        await asyncio.to_thread(self._galaxy.nameservers.rename, self._galaxy.blueprint.names_with(changed))

    async def _refuse(self, act: Act, step: Refuse) -> None:
        file = policy_file(step.object)
        self._node.refused.add(file)
        self._galaxy.manifests.write(file, step.text)
        await self._node.complained(step.complaint)
        act.checks += 1

    async def _command(self, act: Act, step: Command) -> None:
        begun = time.monotonic()
        match step.order:
            case Order.KILL:
                await self._node.kill()
            case Order.STOP:
                problems = await self._node.stop()
                act.checks += 1
                if problems:
                    act.failures.append(Failure("stop of the node", tuple(problems)))
            case Order.START:
                await self._node.start()
                self._log.connect()
        act.change = Change(begun, time.monotonic())

    async def _sneak(self, act: Act, step: Sneak) -> None:
        mark, tried = self._log.mark(), await try_all(step, self._galaxy, self._cast)
        await self._log.wait(
            lambda: not any(flows_missing(one, self._log.since(mark)) for one in tried), self._site.flow_patience
        )
        for one in tried:
            act.checks += 1
            flows = self._log.since(mark)
            problems = (*one.problems, *flow_faults(one, flows))
            if problems:
                seen = tuple(f"flow: {flow}" for flow in own(one, flows))
                act.failures.append(Failure(f"line {one.trick.line} of the corpus, {one.trick.why}", problems, seen))

    async def _ask(self, act: Act, step: Ask) -> None:
        calls = [call for probe in step.probes for call in await self._calls(act, probe)]
        batches = [[call] for call in calls] if step.in_turn else [calls]
        for batch in batches:
            mark = self._log.mark()
            answers = await asyncio.gather(*(self._answer(act, call) for call in batch))
            asked = [
                Asked(call, self._cast.parties(call), answer, mark) for call, answer in zip(batch, answers, strict=True)
            ]
            await self._log.wait(partial(self._complete, asked), self._site.flow_patience)
            for one in asked:
                act.checks += 1
                self._judge(act, one)
            act.asked += asked

    async def _answer(self, act: Act, call: Call) -> Answer:
        if not call.probe.over:
            return await self._site.ask(call)
        assert call.probe.request is not None
        return await act.connections[call.probe.over][0].ask(call.probe.request, call.patience)

    async def _calls(self, act: Act, probe: Probe) -> list[Call]:
        if probe.target.kind == "proxy":
            return [self._cast.call(replace(probe, target=target)) for target in await self._proxy_ports()]
        if probe.over:
            return [self._cast.over(probe, act.connections[probe.over][0].client_port)]
        return [self._cast.call(probe)]

    async def _proxy_ports(self) -> list[Target]:
        status = await self._node.status()
        ports = sorted({int(slot["port"]) for slot in status["slots"] if slot["port"]}) if status else []
        if not ports:
            raise NotEnforced("the node's status names no proxy port")
        return [Target(NODE, port=port) for port in ports]

    def _flows(self, asked: Asked) -> list[SeenFlow]:
        return own_flows(asked.call.probe, asked.parties, self._log.since(asked.mark))

    def _complete(self, asked: Sequence[Asked]) -> bool:
        """Whether every flow that is expected has come."""
        return not any(missing(expected_flows(a.call.probe, a.parties), self._flows(a)) for a in asked)

    def _judge(self, act: Act, asked: Asked) -> None:
        flows = self._flows(asked)
        probe = asked.call.probe
        problems = answer_problems(probe, asked.parties, asked.answer) + flow_problems(probe, asked.parties, flows)
        asked.ok = not problems
        if problems:
            seen = (f"answer: {asked.answer}", *(f"flow: {flow}" for flow in flows[-SEEN_MAX:]))
            command = "" if probe.over else self._site.spell(asked.call)
            act.failures.append(Failure(f"probe {probe}", tuple(problems), seen, command))

    def _look_again(self, act: Act) -> None:
        """Flows that come late must not contradict what was found right before."""
        for asked in act.asked:
            alone = not asked.call.probe.over and asked.call.probe.protocol != "icmp" and len(asked.call.probe.at) == 1
            if asked.ok and alone:
                self._judge(act, asked)

    async def _traffic(self, act: Act, step: Traffic) -> None:
        call = self._cast.opening(step)
        act.loops[step.name] = [Loop(step.request, partial(self._dial, call)) for _ in range(step.connections)]
        for loop in act.loops[step.name]:
            act.tasks.create_task(loop.run())
        await _served(act.loops[step.name], 0.0)

    async def _dial(self, call: Call) -> Connection:
        """The same connection from another port."""
        return await self._site.connect(replace(call, local=(call.local[0], self._cast.ports.take())))

    async def _stream(self, act: Act, step: Stream) -> None:
        command = self._errands.command(step.errand, repeats=True)
        act.loops[step.name] = [Loop(Request(), lambda: LiveCourier.start(command))]
        act.tasks.create_task(act.loops[step.name][0].run())
        await _served(act.loops[step.name], 0.0)

    async def _settle(self, act: Act, step: Settle) -> None:
        loops = act.loops.pop(step.name)
        await _served(loops, act.change.enforced)
        for number, loop in enumerate(loops, 1):
            loop.stop()
            act.checks += len(loop.samples)
            problems = judge(loop.samples, act.change, step)
            if problems:
                act.failures.append(Failure(f"traffic {step.name}, connection {number}", tuple(problems)))


async def _served(loops: Sequence[Loop], moment: float) -> None:
    """Until each loop has a few answers to requests sent after the moment; one that gets none is judged later."""
    try:
        async with asyncio.timeout(PATIENCE):
            for loop in loops:
                await loop.served(AFTER_MIN, moment)
    except TimeoutError:
        pass  # judge() will say so


def _strike(act: Act) -> None:
    """Close what the scenario has left open."""
    for loops in act.loops.values():
        for loop in loops:
            loop.stop()
    for connection, _ in act.connections.values():
        connection.close()


def _spell(step: Step | None) -> str:
    match step:
        case None:
            return "the policies it starts with"
        case Apply() | Remove():
            return f"{type(step).__name__.lower()} {', '.join(step.policies)}"
        case Refuse():
            return f"a bad {step.object}"
        case _:
            return type(step).__name__.lower()
