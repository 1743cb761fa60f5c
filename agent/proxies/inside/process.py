"""The process of a proxy of ours: told by ADS, telling by reports, serving in between, with an agent or without.

It goes on with what it was told last, which stands on its disk; ends at SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agent.errors import EnvironmentProblem
from agent.proxies.inside import workers
from agent.proxies.inside.judging import Judging
from agent.proxies.inside.report_stream import ReportStream
from agent.proxies.inside.workers import Follower, Team
from xds import last
from xds.client import AdsClient, Told

STOPS = (signal.SIGINT, signal.SIGTERM)

log = logging.getLogger("deflector.proxy")

Work: TypeAlias = Coroutine[Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the process finds its agent and its disk, and as whom it asks. `consumer` is of xds.l7."""

    consumer: str
    node_name: str
    socket: Path
    last_told: Path


async def serve(judging: Judging, place: Place, followers: Sequence[Follower] = ()) -> None:
    """Until a signal. EnvironmentProblem where a follower has ended: whoever started this one starts all anew."""
    stream, team = ReportStream(place.socket, place.consumer, judging.source), Team(judging, followers)
    judging.start(lambda urgent: stream.wake(urgent=urgent))
    try:
        told = await _resumed(team, place.last_told)

        async def apply(wanted: Told) -> None:
            await team.apply(wanted)
            _remember(place.last_told, wanted)

        client = AdsClient(place.socket, place.node_name, place.consumer, apply, holds=told)
        if not await _until_signalled((client.run(), stream.run()), [follower.ended() for follower in followers]):
            raise EnvironmentProblem("a worker has ended, and with it this one")
    finally:
        judging.stop()
        for follower in followers:
            follower.stop()


async def follow(judging: Judging, place: Place, descriptor: int) -> None:
    """As one more worker, until its leader ends, or a signal."""
    stream = ReportStream(place.socket, place.consumer, judging.source)
    judging.start(lambda urgent: stream.wake(urgent=urgent))
    try:
        await _until_signalled((stream.run(),), [workers.follow(judging, descriptor)])
    finally:
        judging.stop()


async def _until_signalled(work: Iterable[Work], ends: Iterable[Work]) -> bool:
    """Do the work until a signal comes, or one of `ends` has ended: then False."""
    with _signalled() as stop:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one) for one in work]
            waiting = [group.create_task(one) for one in (stop.wait(), *ends)]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in (*running, *waiting):
                task.cancel()
        return stop.is_set()


async def _resumed(team: Team, path: Path) -> Told:
    """Go on with what was told last."""
    try:
        told = last.load(path)
        await team.apply(told)
    except ValueError as error:
        log.warning("%s: everything is refused until the agent tells", error)
        return Told()
    if told.listening:
        log.info("going on with %d slots as told last", len(told.listening))
    return told


def _remember(path: Path, told: Told) -> None:
    try:
        last.save(path, told)
    except OSError as error:  # it serves all the same; whether it is found after the next death is another matter
        log.warning("cannot write %s: %s", path, error.strerror)


@contextlib.contextmanager
def _signalled() -> Iterator[asyncio.Event]:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in STOPS:
            loop.remove_signal_handler(number)


def require_folder(folder: Path) -> None:
    """EnvironmentProblem where the run directory is not there: who starts proxies has made it."""
    if not folder.is_dir():
        raise EnvironmentProblem(f"{folder} is no folder: name the --run-dir of the node whose agent is to be followed")
