"""Metrics and health of an operator, over HTTP; what it writes is counted, and how fast is bounded."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from agent.cluster.node_report import report
from agent.cluster.reporter import BURST, Reporter
from agent.cluster.resources import DEFLECTOR_NODES, EVENTS
from agent.errors import EnvironmentProblem
from agent.operator.announcer import Announcer, Note
from agent.operator.operator import Operator
from agent.operator.pen import BURST as PEN_BURST
from agent.operator.pen import Pen
from policies.objects import ObjectKey
from tests.cluster.stage import until
from tests.operator.town import Town, eventually, policy


async def ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_health_and_metrics_of_who_leads(town: Town) -> None:
    async with town.operator(page="127.0.0.1:0", cluster="hoth") as leia, town.some_nodes("one") as (one,):
        await until(lambda: leia.reign and leia.reign.is_complete)
        assert leia._page is not None
        port = leia._page.port
        one.realise(await town.apply(policy("rule1")))
        await town.apply(policy("rule2", "["))
        await town.until("rule1", "Enforced", lambda c: c["status"] == "True")
        await town.until("rule2", "Valid", lambda c: c["status"] == "False")
        assert await ask(port, "/healthz") == (200, "ok\n")
        assert await ask(port, "/readyz") == (200, "ok\n")
        code, page = await ask(port, "/metrics")
        assert code == 200
        for line in (
            'deflector_operator_info{cluster="hoth",version="0.1.0"} 1.0',
            "deflector_operator_leading 1.0",
            'deflector_operator_nodes{state="silent"} 0.0',
            'deflector_operator_policies{enforced="False",kind="CiliumNetworkPolicy",valid="False"} ',
            'deflector_operator_writes_total{outcome="ok",resource="ciliumnetworkpolicies.cilium.io"} ',
        ):
            assert line in page
        assert (await ask(port, "/"))[0] == 404


async def test_who_hears_nothing_of_the_api_server_is_not_ready(town: Town) -> None:
    if town.cluster.fake is None:
        pytest.skip("a real server is not taken away")
    town.cluster.fake.faults.slow = 60.0
    async with town.operator(page="127.0.0.1:0") as leia:
        await until(lambda: leia._page and leia._page._runner and leia._page._runner.addresses)
        assert leia._page is not None
        assert await ask(leia._page.port, "/readyz") == (503, "the API server does not answer\n")
        assert await ask(leia._page.port, "/healthz") == (200, "ok\n")
    town.cluster.fake.faults.slow = 0.0


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "192.0.2.1:1"])
async def test_an_address_that_cannot_be_served_is_one_line(town: Town, address: str) -> None:
    with pytest.raises(EnvironmentProblem, match="choose another"):
        await Operator(town.api, town.settings("leia", page=address)).run(asyncio.Event())


async def test_the_pen_writes_a_burst_and_then_in_time(town: Town) -> None:
    pen, began = Pen(town.api, lambda: True, per_second=50.0), time.monotonic()
    for _ in range(PEN_BURST + 10):
        await pen._turn()
    assert 0.15 <= time.monotonic() - began < 1.0


async def test_a_node_reports_a_burst_and_then_the_last_word(town: Town) -> None:
    from agent.operator.definitions import install

    await install(Pen(town.api, lambda: True))
    reporter, name = Reporter(town.api, "0.0.0"), f"{town.prefix}busy"
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(reporter.run())
        for number in range(200):
            reporter.take(report(name, {"CiliumNetworkPolicy a/b": str(number)}, faults=(), problems=()))
            await asyncio.sleep(0.005)
        last = report(name, {"CiliumNetworkPolicy a/b": "199"}, faults=(), problems=())

        async def is_told() -> bool:
            found = await town.api.get(DEFLECTOR_NODES, "", name)
            return bool(found["status"]["states"] == dict(last.states))

        await eventually(is_told)
        assert reporter.requests <= BURST + 4
        running.cancel()
    await town.api.delete(DEFLECTOR_NODES, "", name)


async def test_the_same_event_is_counted_up_and_too_many_are_dropped(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.operator.announcer.PER_SECOND", 1000.0)
    monkeypatch.setattr("agent.operator.announcer.REPEAT_SECONDS", 0.0)
    about = ObjectKey("CiliumNetworkPolicy", town.namespace, "rule1")
    note = Note(about, "00000000-0000-0000-0000-000000000001", "Refused", "Validate", "ü" * 2000)
    announcer = Announcer(Pen(town.api, lambda: True), "leia")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(announcer.run())
        for _ in range(3):
            announcer.tell(note)
            await until(lambda: announcer._queue.empty())
        await until(lambda: announcer.told == 3)
        found = await town.api.get(EVENTS, town.namespace, note.name)
        assert found["series"]["count"] == 3
        assert len(found["note"].encode()) <= 1024
        running.cancel()
    monkeypatch.setattr("agent.operator.announcer.REPEAT_SECONDS", 300.0)
    for number in range(600):
        announcer.tell(Note(about, "u", "Refused", "Validate", str(number)))
    assert announcer.dropped == 100
