"""Askers in pods: one `kubectl exec -i` each, started when its pod is first to ask, for all that it ever asks.

Times are taken here, around what is said to a pod: so a request was sent no sooner, and answered no later, than we say.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from conformance.asker_lines import (
    VERSION,
    Garbled,
    Message,
    decode,
    encode,
    from_attempt,
    from_request,
    to_answer,
)
from conformance.blueprint import Pod
from conformance.cluster.crew import CONTAINER
from conformance.cluster.kubectl import Kubectl, end, in_one_line
from conformance.errors import EnvironmentFailure
from conformance.expectation import Answer, Reaction
from conformance.plain import Attempt
from conformance.probes import PATIENCE
from conformance.scenario import Request

START = 60.0  # seconds until an asker listens: Python and its modules on a busy node
GRACE = 15.0  # seconds that the way there and back may take, beside what a client waits
PROGRAM = ("python", "-m", "conformance.asker")


@dataclass(slots=True)
class Asker:
    """One pod's. Nothing of it raises but `start` and `open`."""

    pod: Pod
    process: asyncio.subprocess.Process
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _waiting: dict[int, asyncio.Future[Message]] = field(default_factory=dict)

    async def attempt(self, attempt: Attempt) -> Answer:
        """Make the attempt from the pod."""
        return await self._answer({"attempt": from_attempt(attempt)}, attempt.patience)

    async def over(self, name: str, request: Request, patience: float) -> Answer:
        """Ask on a connection that is open."""
        return await self._answer({"over": name, "request": from_request(request), "patience": patience}, patience)

    async def open(self, local: tuple[str, int], remote: tuple[str, int]) -> PodConnection:
        """A live connection. Raises OSError."""
        began, name = time.monotonic(), f"{local[1]}"
        said = await self._said({"open": name, "local": local, "remote": remote}, PATIENCE)
        if "port" not in said:
            raise OSError(str(said.get("failed", "no word of it")))
        return PodConnection(self, name, began, int(said["port"]))

    def close(self, name: str) -> None:
        """Let a live connection be closed."""
        self._write({"close": name})

    async def listen(self) -> None:
        """Hear what comes until nothing more does."""
        assert self.process.stdout is not None
        try:
            while line := await self.process.stdout.readline():
                message = decode(line)
                waiting = self._waiting.pop(int(message.get("id", -1)), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
        except (Garbled, ValueError) as error:
            self._give_up(f"not understood: {error}")
        else:
            self._give_up("its stream has ended")

    async def _answer(self, message: Message, patience: float) -> Answer:
        said = await self._said(message, patience)
        try:
            return to_answer(said["answer"])
        except (Garbled, KeyError):
            return Answer(Reaction.FAILED, note=str(said.get("failed", said)))

    async def _said(self, message: Message, patience: float) -> Message:
        number = next(self._numbers)
        waiting: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._write({"id": number, **message})
        try:
            async with asyncio.timeout(patience + GRACE):
                return await waiting
        except TimeoutError:
            return {"failed": f"no word from the asker in pod {self.pod} for {patience + GRACE:.0f} s"}
        finally:
            self._waiting.pop(number, None)

    def _write(self, message: Message) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing() and self.process.returncode is None:
            self.process.stdin.write(encode(message))
            return
        self._give_up("its stream has ended")

    def _give_up(self, why: str) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result({"failed": f"the asker in pod {self.pod}: {why}"})


@dataclass(frozen=True, slots=True)
class PodConnection:
    """A live connection of a pod. It was opened at the earliest when it was asked for."""

    asker: Asker
    name: str
    opened_at: float
    client_port: int

    async def ask(self, request: Request, timeout: float) -> Answer:
        return await self.asker.over(self.name, request, timeout)

    def close(self) -> None:
        self.asker.close(self.name)


class Askers:
    """Those of all pods that have asked so far. `askers()` makes and ends it."""

    def __init__(self, kubectl: Kubectl, tasks: asyncio.TaskGroup) -> None:
        self._kubectl, self._tasks = kubectl, tasks
        self._there: dict[str, Asker] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._listening: list[asyncio.Task[None]] = []

    async def of(self, pod: Pod) -> Asker:
        """The pod's asker. Raises EnvironmentFailure if none can be started."""
        async with self._locks.setdefault(pod.alias, asyncio.Lock()):
            asker = self._there.get(pod.alias)
            if asker is None or asker.process.returncode is not None:
                asker = self._there[pod.alias] = await self._start(pod)
                self._listening.append(self._tasks.create_task(asker.listen()))
            return asker

    async def _start(self, pod: Pod) -> Asker:
        words = ("-n", pod.namespace, "exec", "-i", pod.name, "-c", CONTAINER, "--", *PROGRAM)
        process = await self._kubectl.start(*words)
        try:
            await _ready(pod, process)
        except BaseException:
            await end(process)
            raise
        return Asker(pod, process)

    async def end(self) -> None:
        """End them all."""
        for asker in self._there.values():
            await end(asker.process)
        for task in self._listening:
            task.cancel()


async def _ready(pod: Pod, process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START):
            line = await process.stdout.readline()
            complaint = "" if line else in_one_line(await process.stderr.read())
    except TimeoutError:
        raise EnvironmentFailure(f"the asker in pod {pod} does not listen after {START:.0f} s") from None
    try:
        said = decode(line).get("ready") if line else None
    except Garbled as error:
        said, complaint = None, str(error)
    if said != VERSION:
        words = complaint or f"it speaks version {said}, not {VERSION}: the pods' image is of another Deflector"
        raise EnvironmentFailure(f"the asker in pod {pod}: {words}")


@asynccontextmanager
async def askers(kubectl: Kubectl) -> AsyncIterator[Askers]:
    """Askers as they are needed, for the length of the block."""
    async with asyncio.TaskGroup() as tasks:
        made = Askers(kubectl, tasks)
        try:
            yield made
        finally:
            await made.end()
