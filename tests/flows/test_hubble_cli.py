"""The stock hubble command line, where HUBBLE_CLI names it: our lines against its own, and our server under it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows.jsonpb import to_json
from flows.observer import Observer
from flows.request import FilterOption, Options, build_request
from flows.server import start
from tests.flows.hubble_runs import RESPONSES, RUNS, TESTDATA
from tests.flows.make import Galaxy, denied, drop, exchange, message
from tests.flows.test_packet_lines import CLUSTERWIDE, DENYING, LINES

HUBBLE = os.environ.get("HUBBLE_CLI", "")


async def hubble(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        HUBBLE,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": "/nonexistent"},
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate(stdin)
    return process.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("name", RUNS)
async def test_recordings_are_what_it_prints(name: str, golden: Callable[[Path, str], None]) -> None:
    code, out, err = await hubble("observe", "--input-file", "-", *RUNS[name][0], stdin=RESPONSES.read_bytes())
    assert code == 0
    golden(TESTDATA / f"{name}.txt", out + err)


FILTERS = [
    [FilterOption("pod", "tie"), FilterOption("verdict", "DROPPED")],
    [FilterOption("namespace", "default"), FilterOption("to-port", "80", negated=True)],
    [FilterOption("type", "trace:to-proxy"), FilterOption("identity", "world"), FilterOption("protocol", "http")],
    [FilterOption("all-namespaces"), FilterOption("http-header", "A:b"), FilterOption("workload", "Deployment/x")],
]


@pytest.mark.parametrize("options", FILTERS)
async def test_options_mean_the_same(options: list[FilterOption]) -> None:
    arguments = []
    for option in options:
        arguments += ["--not"] if option.negated else []
        arguments += [f"--{option.name}", *([option.value] if option.value else [])]
    _, out, _ = await hubble("observe", "--print-raw-filters", *arguments)
    theirs = {name: [json.loads(one) for one in filters] for name, filters in yaml.safe_load(out).items()}
    request = build_request(Options(filters=options), 0)
    ours = {"allowlist": request.whitelist, "denylist": request.blacklist}
    assert theirs == {name: [json.loads(to_json(one)) for one in filters] for name, filters in ours.items() if filters}


async def test_observe_and_status_against_our_server(tmp_path: Path) -> None:
    observer = Observer(Galaxy, version="0.1.0")
    observer.access_log(message(*exchange(), denied()))
    observer.packets([drop()])
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    try:
        code, out, err = await hubble("observe", "--server", target)
        assert (code, err) == (0, "")
        assert [line.partition(": ")[2] for line in out.splitlines()] == [
            "default/tiefighter:40000 (ID:2222) -> default/deathstar-1:80 (ID:4711) http-request FORWARDED "
            "(HTTP/1.1 PUT http://deathstar/v1/exhaust-port)",
            "default/tiefighter:40000 (ID:2222) <- default/deathstar-1:80 (ID:4711) http-response FORWARDED "
            "(HTTP/1.1 200 1ms (PUT http://deathstar/v1/exhaust-port))",
            "default/tiefighter:40000 (ID:2222) -> default/deathstar-1:80 (ID:4711) http-request DROPPED "
            "(HTTP/1.1 PUT http://deathstar/v1/exhaust-port)",
            "default/tiefighter:40000 (ID:2222) <- default/deathstar-1:80 (ID:4711) http-response FORWARDED "
            "(HTTP/1.1 403 1ms (PUT http://deathstar/v1/exhaust-port))",
            "default/xwing:50000 (ID:3333) <> default/deathstar-1:80 (ID:4711) Policy denied DROPPED (TCP Flags: SYN)",
        ]
        code, out, err = await hubble("status", "--server", target)
        assert (code, err) == (0, "")
        assert out.startswith(f"Healthcheck (via {target}): Ok\nCurrent/Max Flows: 5/4,095 (0.12%)\nFlows/s: ")
        code, out, err = await hubble("observe", "--server", target, "--protocol", "gopher")
        assert (code, out, err) == (1, "", 'invalid protocol filter: unknown protocol: "gopher"\n')
        code, out, _ = await hubble("list", "nodes", "--server", target)
        assert (code, out.splitlines()[1].split()[:2]) == (0, ["n1", "Connected"])
        code, out, _ = await hubble("list", "namespaces", "--server", target)
        assert (code, out.split()) == (0, ["NAMESPACE", "default"])
        code, out, err = await hubble("reflect", "--server", target)
        assert (code, err) == (0, "")
        files = [json.loads(line) for line in out.splitlines()]
        assert {"observer/observer.proto", "flow/flow.proto"} <= {file["name"] for file in files}
    finally:
        await server.stop(None)


async def test_lines_of_packets(tmp_path: Path) -> None:
    galaxy = Galaxy(policies=(DENYING, CLUSTERWIDE))
    observer = Observer(lambda: galaxy, version="0.1.0")
    observer.packets([drop(**changes) for changes, _ in LINES])
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    try:
        code, out, err = await hubble("observe", "--server", target, "--print-policy-names")
    finally:
        await server.stop(None)
    assert (code, err) == (0, "")
    assert [line.partition(": ")[2] for line in out.splitlines()] == [line for _, line in LINES]


async def test_following_our_server_to_its_end(tmp_path: Path) -> None:
    observer = Observer(Galaxy, version="0.1.0")
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    process = await asyncio.create_subprocess_exec(
        *(HUBBLE, "observe", "-f", "--last", "1", "--server", target, "--pod", "xwing"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": "/nonexistent"},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            observer.packets([drop()])
            seen = len((await process.stdout.readline()).splitlines())  # now it follows
            for _ in range(20):
                observer.packets([drop()] * 100)
                for _ in range(100):
                    assert b"Policy denied DROPPED" in await process.stdout.readline()
                    seen += 1
            await server.stop(0.1)
            out, err = await process.communicate()
    finally:
        await server.stop(None)
        if process.returncode is None:
            process.kill()
    assert (seen, out, process.returncode) == (2001, b"", 1)
    assert b"the server is stopping" in err
