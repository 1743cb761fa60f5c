"""Two operators, of which one leads: handing over, being killed, being cut off, being frozen."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from agent.cluster.errors import ApiError
from agent.cluster.resources import CILIUM_POLICIES, LEASES
from agent.operator.election import LEASE, Election
from agent.operator.pen import NotLeading, Pen
from tests.cluster.stage import until
from tests.operator.town import FAST, Town, eventually, free_port, policy

DEFLECTOR = Path(sys.executable).parent / "deflector"
QUICK = (
    "--leader-election-lease-duration=1500ms",
    "--leader-election-renew-deadline=1s",
    "--leader-election-retry-period=200ms",
)


async def holder(town: Town) -> str:
    try:
        lease = await town.api.get(LEASES, town.namespace, LEASE)
    except ApiError:
        return ""
    return str(lease["spec"].get("holderIdentity") or "")


async def test_one_leads_and_gives_the_lease_back_when_it_goes(town: Town) -> None:
    async with town.operator("leia") as leia:
        await until(lambda: leia.election.is_leading)
        async with town.operator("han") as han:
            await until(lambda: han.election.leader == "leia")  # he has looked
            assert not han.election.is_leading
            assert han.reign is None
            assert await holder(town) == "leia"
            began = time.monotonic()
            leia_left = asyncio.Event()

            async def follow() -> None:
                await until(lambda: han.election.is_leading)
                leia_left.set()

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(follow())
                await leia._tasks.stop()
            assert leia_left.is_set()
            assert time.monotonic() - began < FAST.duration  # nobody had to wait for it to run out


async def test_who_has_lost_the_lease_writes_no_more(town: Town) -> None:
    async with town.operator("leia") as leia:
        await until(lambda: leia.reign and leia.reign.is_complete)
        lease = await town.api.get(LEASES, town.namespace, LEASE)
        while True:  # somebody takes it by force
            lease["spec"] |= {"holderIdentity": "vader", "renewTime": "2026-01-01T00:00:00.000000Z"}
            try:
                await town.api.update(LEASES, town.namespace, lease)
                break
            except ApiError:
                lease = await town.api.get(LEASES, town.namespace, LEASE)
        await until(lambda: not leia.election.is_leading, 2)
        with pytest.raises(NotLeading):
            await leia._pen.apply(CILIUM_POLICIES, town.namespace, policy("rule1"))
        await until(lambda: leia.election.is_leading, 5)  # vader never renews
        assert (await town.api.get(LEASES, town.namespace, LEASE))["spec"]["leaseTransitions"] == 1


async def test_who_was_frozen_knows_it_before_its_timers_do(town: Town) -> None:
    async with town.cluster.session() as server:
        election = Election(server, town.namespace, "leia", FAST)
        pen = Pen(server, lambda: election.is_leading)
        assert await election._try()
        time.sleep(FAST.renew + 0.05)  # noqa: ASYNC251 - nothing of this process runs meanwhile
        assert not election.is_leading
        with pytest.raises(NotLeading):
            await pen.apply(CILIUM_POLICIES, town.namespace, policy("rule1"))


async def test_who_is_cut_off_stops_before_another_may_start(town: Town) -> None:
    if town.cluster.fake is None:
        pytest.skip("a real server is not taken away")
    led: list[str] = []

    async def lead() -> None:
        try:
            led.append("on")
            await asyncio.Event().wait()
        finally:
            led.append("off")

    fake = town.cluster.fake
    async with town.cluster.session() as server, asyncio.TaskGroup() as tasks:
        election = Election(server, town.namespace, "leia", FAST)
        running = tasks.create_task(election.run(lead))
        await until(lambda: led == ["on"])
        fake.faults.slow = 60.0
        began = time.monotonic()
        await until(lambda: led == ["on", "off"], 5)
        assert time.monotonic() - began < FAST.duration
        fake.faults.slow = 0.0
        await until(lambda: led == ["on", "off", "on"], 5)
        running.cancel()


@asynccontextmanager
async def process(town: Town, folder: Path, identity: str, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`deflector operator` as a process of its own."""
    config = folder / "kubeconfig"
    access = town.api.access
    cluster: dict[str, Any] = {"server": access.server}
    if access.authority.path:
        cluster["certificate-authority"] = str(access.authority.path)
    header = access.identity.authorization()
    text = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": header.removeprefix("Bearer ")} if header else {}}],
    }
    config.write_text(yaml.safe_dump(text))
    about = ("--kubeconfig", str(config), "--namespace", town.namespace, "--identity", identity, "--install-crds")
    with (folder / f"{identity}.log").open("ab") as log:
        made = await asyncio.create_subprocess_exec(
            str(DEFLECTOR), "operator", *about, *QUICK, *more, stdout=log, stderr=log
        )
    try:
        yield made
    finally:
        if made.returncode is None:
            made.send_signal(signal.SIGTERM)
        await asyncio.wait_for(made.wait(), 15)


async def test_when_the_leader_is_killed_another_goes_on(town: Town, tmp_path: Path) -> None:
    async with process(town, tmp_path, "leia") as leia:
        await eventually(lambda: _held_by(town, "leia"), 20)
        page = f"127.0.0.1:{free_port()}"
        async with (
            process(town, tmp_path, "han", "--metrics-listen-address", page) as han,
            town.some_nodes("one") as (one,),
        ):
            made = await town.apply(policy("rule1"))
            one.realise(made)
            await town.until("rule1", "Enforced", lambda c: c["status"] == "True", 20)
            await eventually(lambda: _is_ready(page), 20)  # han is there and has looked
            os.kill(leia.pid, signal.SIGKILL)
            edited = await town.apply(policy("rule1", "["))
            await town.until("rule1", "Valid", lambda c: c["status"] == "False", 15)
            assert (await holder(town)).startswith("han_")
            assert edited["metadata"]["generation"] == 2
            han.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(han.wait(), 15) == 0
            assert await holder(town) == ""  # given back
    words = (tmp_path / "han.log").read_text()
    assert "Traceback" not in words
    assert "leading as han_" in words


async def _is_ready(page: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{page}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _held_by(town: Town, name: str) -> bool:
    return (await holder(town)).startswith(f"{name}_")
