"""What a node tells machines, without a kernel: the page, the files, and what is refused before anything is touched."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.config import ObservabilityConfig
from agent.errors import EnvironmentProblem
from agent.observing import observability
from agent.observing.observability import Observability
from agent.observing.telemetry import Health, Telemetry
from agent.supervise import Tasks
from flows.export.config import FileSpec, static
from flows.observer import Observer
from flows.reading import Reading
from policies.objects import Pod, PodKey
from tests.flows.make import Galaxy, denied, drop, exchange, message

PAGE = "127.0.0.1:0"
CONTEXT = "labelsContext=source_pod,source_namespace,destination_namespace"


async def until(condition: Callable[[], bool], what: str = "") -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def observed(
    config: ObservabilityConfig, health: Health | None = None
) -> AsyncIterator[tuple[Observer, Observability]]:
    observer = Observer(Galaxy, version="0.1.0")
    collectors = (Telemetry(lambda: health),) if health else ()
    made = Observability(config, ("n1", "0.1.0"), observer.flows, collectors)
    tasks = Tasks()
    made.start(tasks)
    try:
        wanted = bool(config.metrics) + (config.exporter is not None)
        await until(lambda: observer.readers >= wanted)
        yield observer, made
        failed = asyncio.ensure_future(tasks.failed())  # noqa: TID251
        await asyncio.sleep(0)
        assert not failed.done(), failed
        failed.cancel()
    finally:
        await tasks.stop()
        await made.stop()


async def page(made: Observability) -> str:
    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{made.port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(fetch)


async def shown(made: Observability, line: str) -> None:
    """Wait until the page has this line."""
    async with asyncio.timeout(10):
        while line not in (text := await page(made)).splitlines():
            assert text
            await asyncio.sleep(0.02)


async def test_denials_are_counted_on_the_page() -> None:
    config = ObservabilityConfig(metrics_address=PAGE, metrics="drop flow httpV2:labelsContext=source_namespace,bogus")
    with pytest.raises(EnvironmentProblem, match=r'--hubble-metrics: httpV2: labelsContext: "bogus" is none of'):
        Observability(config, ("n1", "0.1.0"), Observer(Galaxy, version="0.1.0").flows)
    config = ObservabilityConfig(metrics_address=PAGE, metrics=f"drop flow policy:{CONTEXT}")
    async with observed(config) as (observer, made):
        observer.packets([drop(), drop()])
        observer.access_log(message(*exchange(), denied()))
        await shown(made, 'hubble_drop_total{protocol="TCP",reason="POLICY_DENIED"} 2.0')
        await shown(made, 'hubble_drop_total{protocol="HTTP",reason="DROP_REASON_UNKNOWN"} 1.0')


async def test_the_losses_of_the_kernel_are_counted_also_when_nothing_else_is() -> None:
    async with observed(ObservabilityConfig(metrics_address=PAGE)) as (observer, made):
        assert observer.readers == 0
        made.lost(7)
        await shown(made, 'hubble_lost_events_total{source="perf_event_ring_buffer"} 7.0')
        await shown(made, 'hubble_lost_events_total{source="hubble_ring_buffer"} 0.0')


async def test_series_of_a_pod_go_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observability, "POD_REST", 0.0)
    monkeypatch.setattr(observability, "FORGET_EVERY", 0.01)
    async with observed(ObservabilityConfig(metrics_address=PAGE, metrics=f"drop:{CONTEXT}")) as (observer, made):
        made.take_pods({key: Pod(*key) for key in [PodKey("default", "xwing"), PodKey("default", "other")]})
        observer.packets([drop()])
        async with asyncio.timeout(10):
            while 'source_pod="xwing"' not in await page(made):
                await asyncio.sleep(0.02)
            made.take_pods({key: Pod(*key) for key in [PodKey("default", "other")]})
            while 'source_pod="xwing"' in await page(made):
                await asyncio.sleep(0.02)


async def test_files_of_the_command_line_and_of_the_dynamic_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observability, "EXPORTERS_EVERY", 0.02)
    dynamic, all_flows, drops = tmp_path / "flowlogs.yaml", tmp_path / "all.log", tmp_path / "drops.log"
    dynamic.write_text(
        f"flowLogs: [{{name: drops, filePath: {drops}, includeFilters: [{{event_type: [{{type: 1}}]}}]}}]"
    )
    config = ObservabilityConfig(
        metrics_address=PAGE, exporter=static(FileSpec(str(all_flows)), mask="verdict"), exporters_file=dynamic
    )
    async with observed(config) as (observer, made):
        await until(lambda: observer.readers == 2)
        observer.packets([drop()])
        observer.access_log(message(*exchange()))
        await until(lambda: all_flows.read_text().count("\n") == 3)
        await until(lambda: drops.read_text().count("\n") == 1)
        assert json.loads(all_flows.read_text().splitlines()[0]) == {"flow": {"verdict": "DROPPED"}}
        await shown(made, 'hubble_dynamic_exporter_up{name="drops"} 1.0')
        await shown(made, 'deflector_exporter_events_total{name="drops",outcome="written"} 1.0')
        for number, bad in enumerate(("flowLogs: [", f"flowLogs: [{{name: static, filePath: {drops}}}]"), 1):
            dynamic.write_text(bad)
            await shown(made, f'hubble_dynamic_exporter_reconfigurations_total{{op="failure"}} {number}.0')
        dynamic.write_text("flowLogs: []")
        await shown(made, 'hubble_dynamic_exporter_reconfigurations_total{op="remove"} 1.0')


async def test_health_is_read_in_the_loop_of_the_node() -> None:
    health = Health(version="0.1.0", revision=3, xds_nacks=2, ports=1000, ports_used=4, maps={"policy": (5, 10)})
    async with observed(ObservabilityConfig(metrics_address=PAGE), health) as (_, made):
        text = await page(made)
        for line in (
            'deflector_build_info{version="0.1.0"} 1.0',
            "deflector_policy_revision 3.0",
            'deflector_xds_responses_total{answer="nack"} 2.0',
            "deflector_proxy_ports_free 996.0",
            'deflector_bpf_map_pressure{map="policy"} 0.5',
        ):
            assert line in text.splitlines()


async def test_a_busy_page_and_two_configurations_are_the_users_affair() -> None:
    flows = Observer(Galaxy, version="0.1.0").flows
    async with observed(ObservabilityConfig(metrics_address=PAGE)) as (_, made):
        with pytest.raises(
            EnvironmentProblem, match=r"Address already in use; choose another \(--hubble-metrics-server\)"
        ):
            Observability(ObservabilityConfig(metrics_address=f"127.0.0.1:{made.port}"), ("n1", "0"), flows)
    with pytest.raises(EnvironmentProblem, match="exclude each other"):
        Observability(ObservabilityConfig(metrics="drop", metrics_file=Path("x")), ("n1", "0"), flows)


async def test_a_fault_of_what_watches_does_not_end_what_enforces(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(reading: Reading) -> AsyncIterator[list[bytes]]:
        yield [b"\xff no flow"]

    made = Observability(ObservabilityConfig(metrics_address=PAGE, metrics="drop"), ("n1", "0"), broken)  # type: ignore[arg-type]
    tasks = Tasks()
    made.start(tasks)
    try:
        await until(lambda: "internal error: metrics have ended" in caplog.text)
        assert "hubble_lost_events_total" in await page(made)
    finally:
        await tasks.stop()
        await made.stop()
