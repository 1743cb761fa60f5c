"""A whole node, the real kernel and the real Envoy: what is denied is counted, written, sent and shown under TLS."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance import netns
from conformance.blueprint import star_wars
from conformance.galaxy import NODE, Galaxy, galaxy
from conformance.node import DEFLECTOR, Node, running
from tests.agent.galaxy import DROPPED, LANDING, PORT, Asker, http_rule, save
from tests.flows.certificates import Authority

pytestmark = pytest.mark.privileged

PAGE, API = "127.0.0.1:9965", "0.0.0.0:4244"
METRICS = "drop flow policy http:labelsContext=source_pod,destination_namespace"
PATIENCE = 10.0


@dataclass
class Story:
    made: Galaxy
    node: Node
    authority: Authority
    flows: Path

    async def inside(self, *argv: str) -> tuple[int, str]:
        """Exit code and output of a command beside the node."""
        process = await asyncio.create_subprocess_exec(
            *netns.inside(self.made.namespace(NODE), argv),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    async def page(self) -> list[str]:
        code, out = await self.inside("curl", "-sf", f"http://{PAGE}/metrics")
        assert code == 0
        return out.splitlines()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    authority = Authority(tmp_path / "pki")
    with galaxy(star_wars(), prefix="seen") as made:
        certificate, key = authority.sign("server", f"{made.blueprint.name}.default.hubble-grpc.cilium.io")
        flags = (
            *("--hubble-metrics-server", PAGE, "--hubble-metrics", METRICS, "--hubble-address", API),
            *("--hubble-tls-cert-file", str(certificate), "--hubble-tls-key-file", str(key)),
            *("--hubble-tls-client-ca-files", str(authority.certificate)),
            *("--hubble-export-file-path", str(tmp_path / "events.log")),
            *("--hubble-export-allowlist", '{"verdict":["DROPPED"]}'),
        )
        save(made, "land", http_rule(LANDING, {"org": "empire"}))
        async with running(made, flags) as node:
            yield Story(made, node, authority, tmp_path / "events.log")


async def test_denials_are_counted_and_written(story: Story) -> None:
    asker = Asker(story.made)
    assert await asyncio.to_thread(asker.ask, "tiefighter", LANDING, 5.0) == "200"
    assert await asyncio.to_thread(asker.ask, "tiefighter", PORT, 5.0) == "403"
    assert await asyncio.to_thread(asker.ask, "xwing", LANDING, 0.5) == DROPPED
    await until(lambda: '"POLICY_DENIED"' in story.flows.read_text())
    verdicts = {json.loads(line)["flow"]["verdict"] for line in story.flows.read_text().splitlines()}
    assert verdicts == {"DROPPED"}
    async with asyncio.timeout(PATIENCE):
        while not _has(await story.page(), 'hubble_drop_total{protocol="HTTP",reason="DROP_REASON_UNKNOWN"} 1.0'):
            await asyncio.sleep(0.1)
    page = await story.page()
    assert any(line.startswith('hubble_drop_total{protocol="TCP",reason="POLICY_DENIED"}') for line in page)
    assert any('status="403"' in line and line.startswith("hubble_http_responses_total") for line in page)
    assert any(line.startswith("hubble_policy_verdicts_total") for line in page)
    assert _has(page, "deflector_envoy_connected 1.0")
    assert _has(page, "deflector_policy_complete 1.0")
    assert _has(page, "deflector_policy_propagation_seconds_count 1.0")
    assert _value(page, 'deflector_xds_responses_total{answer="ack"}') >= 1
    assert _value(page, 'deflector_xds_responses_total{answer="nack"}') == 0
    assert _value(page, 'deflector_bpf_map_entries{map="policy"}') >= 1
    assert _value(page, "deflector_proxy_ports_used") == 1
    status = await story.node.status()
    assert status is not None
    assert status["hubble"]["addresses"][1] == f"tls://{API}"
    assert (status["metrics"], status["exporters"]) == (PAGE, [str(story.flows)])


async def test_the_api_is_for_those_whom_the_authority_vouches_for(story: Story) -> None:
    certificate, key = story.authority.sign("client")
    name = f"{story.made.blueprint.name}.default.hubble-grpc.cilium.io"
    trust = ("--tls-ca-cert-files", str(story.authority.certificate), "--tls-server-name", name)
    server = ("--server", "127.0.0.1:4244", *trust)
    shown = ("--tls-client-cert-file", str(certificate), "--tls-client-key-file", str(key))
    code, out = await story.inside(str(DEFLECTOR), "status", *server, *shown)
    assert (code, out.splitlines()[0]) == (0, "Healthcheck (via 127.0.0.1:4244): Ok")
    code, out = await story.inside(str(DEFLECTOR), "observe", *server, *shown, "--all")
    assert code == 0, out
    code, out = await story.inside(str(DEFLECTOR), "status", *server)
    assert code == 2, out
    stock = os.environ.get("HUBBLE_CLI")
    if stock:
        code, out = await story.inside(stock, "status", "--tls", *server, *shown)
        assert code == 0, out
    code, out = await story.inside(str(DEFLECTOR), "list", "nodes", "--run-dir", str(story.made.run_dir))
    assert code == 0
    assert out.splitlines()[1].split()[:2] == [story.made.blueprint.name, "Connected"]
    watching = ("timeout", "3", str(DEFLECTOR), "watch", "peers", "--run-dir", str(story.made.run_dir))
    _, out = await story.inside(*watching)
    assert "PEER_ADDED" in out
    assert f"{story.made.blueprint.name} (TLS.ServerName: {name})" in out


def _has(page: list[str], line: str) -> bool:
    return line in page


def _value(page: list[str], series: str) -> float:
    (line,) = (line for line in page if line.startswith(f"{series} "))
    return float(line.rpartition(" ")[2])
