"""Exporters come, change and go while flows go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from flow import flow_pb2
from observer import observer_pb2
from prometheus_client import CollectorRegistry

from flows.dynamic import DynamicFile
from flows.export.config import ExportConfigError, ExporterSpec, FileSpec, parse_file
from flows.export.exporters import Exporters
from flows.reading import Reading

RESPONSE = observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(verdict=flow_pb2.DROPPED)).SerializeToString()


async def flows(reading: Reading) -> AsyncIterator[Sequence[bytes]]:
    """One flow, and then silence."""
    yield [RESPONSE]
    await asyncio.Event().wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def spec(name: str, path: Path, **more: object) -> ExporterSpec:
    return ExporterSpec(name, FileSpec(str(path)), **more)  # type: ignore[arg-type]


async def test_a_change_of_one_exporter_leaves_the_others_alone(tmp_path: Path) -> None:
    complaints: list[str] = []
    exporters = Exporters(flows, complaints.append, lambda: 7.0)
    registry = CollectorRegistry()
    registry.register(exporters)

    def operations(op: str) -> float | None:
        return registry.get_sample_value("hubble_dynamic_exporter_reconfigurations_total", {"op": op})

    async with asyncio.TaskGroup() as group:
        run = group.create_task(exporters.run())
        exporters.configure([spec("a", tmp_path / "a.log"), spec("b", tmp_path / "b.log")])
        await until(lambda: (tmp_path / "b.log").exists() and (tmp_path / "b.log").read_bytes() != b"")
        exporters.configure([spec("a", tmp_path / "a.log"), spec("b", tmp_path / "b2.log")])
        await until(lambda: operations("update") == 1)
        exporters.configure([spec("a", tmp_path / "a.log")])
        await until(lambda: operations("remove") == 1)
        exporters.configure([spec("a", tmp_path / "a.log"), spec("c", tmp_path / "a.log" / "impossible")])
        await until(lambda: operations("failure") == 1)
        active = registry.get_sample_value("hubble_dynamic_exporter_exporters_total", {"status": "active"})
        assert active == 1
        assert registry.get_sample_value("hubble_dynamic_exporter_up", {"name": "a"}) == 1
        assert registry.get_sample_value("hubble_dynamic_exporter_config_last_applied") == 7.0
        run.cancel()
    assert (tmp_path / "a.log").read_text().count("\n") == 1
    assert complaints == [f"exporter c: {tmp_path}/a.log/impossible: File exists; not started"]


def test_a_bad_file_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    path, complaints, applied = tmp_path / "flowlogs.yaml", list[str](), list[tuple[str, ...]]()

    def apply(document: object) -> None:
        applied.append(tuple(one.name for one in parse_file(document)))

    file = DynamicFile(path, apply, complaints.append)
    file.look(file.read())
    assert "cannot be read: No such file" in complaints.pop()
    path.write_text("flowLogs: [{name: a, filePath: /tmp/a}]")
    file.look(file.read())
    for bad in ("flowLogs: [{name: a", "flowLogs: [{name: a}]", "flowLogs: [{name: a}]"):
        path.write_text(bad)
        file.look(file.read())
    assert applied == [("a",)]
    assert len(complaints) == 2
    assert "name and filePath are required; what was in force stays" in complaints[1]
    assert issubclass(ExportConfigError, ValueError)
