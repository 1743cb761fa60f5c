"""`deflector conformance run --target kubernetes`, whole: kubectl, pods, askers, policies, conditions, flows, clean-up;
on the real kernel and with the real Envoy."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.cluster.resources import NAMESPACES
from conformance import suites
from conformance.blueprint import star_wars
from conformance.cluster.claim import OWNER, OWNER_LABEL, RENEWED
from tests.conformance.cluster_house import DEFLECTOR, IMAGE, House, a_house

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(300)]
NOT_PLAYED = {"world-and-node", "proxy-port", "node-killed", "node-stopped", "invalid-policy"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(star_wars(), tmp_path) as one:
        yield one


async def test_the_story_of_star_wars_holds_in_a_cluster(house: House) -> None:
    code, out, complaint = await house.run("starwars", "-o", "json")
    assert out, (complaint, (house.folder / "processes.log").read_text())
    report = json.loads(out)
    failed = [(one["name"], one["failures"]) for one in report["results"] if not one["ok"]]
    assert (code, failed) == (0, []), complaint
    assert report["versions"]["Deflector"] == IMAGE
    assert house.kubelet.seen_images == {IMAGE}
    assert {one["name"] for one in report["not_played"]} == NOT_PLAYED
    assert len(report["results"]) + len(NOT_PLAYED) == len(suites.load("starwars").scenarios)
    (lockdown,) = [one for one in report["results"] if one["name"] == "lockdown"]
    assert any("there is no world" in why for why in lockdown["left_out"])
    assert await house.namespaces() == set()


async def test_what_was_made_goes_also_on_interrupt_and_what_dead_runs_left_is_swept(house: House) -> None:
    await _left_behind(house, "deflector-conformance-dead", timedelta(hours=1))
    await _left_behind(house, "deflector-conformance-alive", timedelta(seconds=1))
    process = await house.start("starwars")
    assert process.stdout is not None
    assert (await process.stdout.readline()).decode().startswith("✓ demo-1"), await process.stderr.read()  # type: ignore[union-attr]
    (mine,) = await house.namespaces() - {"deflector-conformance-alive"}
    process.send_signal(signal.SIGINT)
    _, complaint = await process.communicate()
    assert (process.returncode, b"Traceback" in complaint) == (130, False), complaint
    assert await house.namespaces() == {"deflector-conformance-alive"}
    async with asyncio.timeout(10):
        while any(raw["metadata"]["namespace"] == mine for raw in await house.pods()):
            await asyncio.sleep(0.1)

    code, _, complaint_text = await house.run("starwars", "--namespace", "deflector-conformance-alive")
    words = "namespace deflector-conformance-alive is there already: name another with --namespace"
    assert (code, complaint_text) == (2, f"deflector: {words}\n")
    await house.api.delete(NAMESPACES, "", "deflector-conformance-alive")
    code, out, _ = await house.run("bypass")
    assert (code, "0 of 0 scenarios passed" in out, "13 not played" in out) == (0, True, True)


async def _left_behind(house: House, name: str, age: timedelta) -> None:
    renewed = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%S+00:00")
    meta = {"name": name, "labels": {OWNER_LABEL: OWNER}, "annotations": {RENEWED: renewed}}
    await house.api.create(NAMESPACES, "", {"metadata": meta})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--kubectl", "no-such-kubectl"), "no-such-kubectl is not installed: name one that can with --kubectl"),
        (("--kubectl", "false"), "the cluster cannot be reached: exit code 1"),
    ],
)
async def test_a_cluster_that_is_not_there_is_told_in_one_line(words: tuple[str, ...], complaint: str) -> None:
    argv = (str(DEFLECTOR), "conformance", "run", "starwars", "--target", "kubernetes", *words)
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert (process.returncode, said.decode()) == (2, f"deflector: {complaint}\n")
