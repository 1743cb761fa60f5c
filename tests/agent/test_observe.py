"""`deflector observe` over a real socket and over files: flows, agent events, field masks, reasons."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flows.agent_events import policy_updated
from flows.observer import Observer
from flows.server import start
from tests.flows.make import Galaxy, denied, drop, exchange, message


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[str]:
    galaxy = Galaxy(names={("10.0.0.9", "10.0.0.1"): ("dns.google",)})
    observer = Observer(lambda: galaxy, version="0.1.0")
    observer.access_log(message(*exchange(request="GET /v1?password=secret"), denied()))
    observer.packets([drop()])
    observer.agent_event(policy_updated(["k8s:io.cilium.k8s.policy.name=landing"], 4, 2))
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    try:
        yield target
    finally:
        await server.stop(None)


async def observed(*words: str, stdin: str = "") -> tuple[int, str, str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "agent", "observe", *words],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


async def test_flows_with_and_without_a_mask(tmp_path: Path) -> None:
    async with serving(tmp_path) as target:
        masked = await observed("--server", target, "--print-policy-names")
        whole = await observed("flows", "--server", target, "--use-default-field-masks=false", "--print-policy-names")
        assert masked == whole
        code, out, err = masked
        assert (code, err) == (0, "")
        assert [line.partition(": ")[2].partition(" (HTTP")[0] for line in out.splitlines()][:1] == [
            "default/tiefighter:40000 (ID:2222) -> default/deathstar-1:80 (ID:4711) http-request FORWARDED"
        ]
        assert "secret" not in out
        code, out, err = await observed("--server", target, "-o", "json", "--field-mask", "uuid,source.pod_name")
        flows = [json.loads(line)["flow"] for line in out.splitlines()]
        assert {key for flow in flows for key in flow} == {"uuid", "source"}


async def test_reasons(tmp_path: Path) -> None:
    async with serving(tmp_path) as target:
        code, out, err = await observed("--server", target, "--why", "--verdict", "DROPPED")
        whole = await observed("--server", target, "--why", "--verdict", "DROPPED", "--use-default-field-masks=false")
        assert (code, out, err) == whole
        assert code == 0


async def test_agent_events(tmp_path: Path) -> None:
    async with serving(tmp_path) as target:
        code, out, err = await observed("agent-events", "--server", target)
        assert (code, err) == (0, "")
        assert out.partition(": ")[2] == (
            "POLICY_UPDATED (labels: [k8s:io.cilium.k8s.policy.name=landing], revision: 4, count: 2)\n"
        )
        code, _, err = await observed("debug-events", "--server", target)
        assert code != 0
        assert "no debug mode" in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--not", "--not", "--pod", "x"), "consecutive --not statements"),
        (("--field-mask", "time"), "compact output format is not compatible with custom field mask"),
        (("-o", "json", "--field-mask", "nope"), "invalid fieldmask: flow has no field 'nope'"),
        (("-o", "table", "-f"), "table output format is not compatible with follow mode"),
        (("--allowlist", "{"), "invalid --allowlist flag: failed to decode '{'"),
        (("--input-file", "/nonexistent"), "open /nonexistent: No such file or directory"),
        (("--input-file", "-", "--cel-expression", "_flow.nope"), "undefined field 'nope'"),
        (("--input-file", "-", "--last", "2000000"), "--last must be <= 1_000_000"),
    ],
)
async def test_what_is_refused_in_one_line(words: tuple[str, ...], complaint: str) -> None:
    code, out, err = await observed(*words)
    assert code != 0
    assert (out, err.count("Traceback")) == ("", 0)
    assert complaint in err


async def test_a_file_that_is_not_whole() -> None:
    lines = '{"flow":{"verdict":"DROPPED"}}\n{"flow":{"ver'
    code, out, err = await observed("--input-file", "-", stdin=lines)
    assert (code, out) == (0, "N/A:  (unknown) <>  (unknown) UNKNOWN DROPPED ()\n")
    assert err.startswith("deflector: not a response in JSON: ")
    assert await observed("--input-file", "-", "-s", stdin=lines) == (0, out, "")
