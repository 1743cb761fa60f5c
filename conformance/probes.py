"""Real clients inside the pods: curl, ping, grpcio, and sockets for the rest. Each ends in an Answer.

Every client gets a source port of its own, below the ephemeral range, so that flows can be told apart.
"""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from conformance import netns, rpc, wire
from conformance.expectation import UNANSWERED, Answer, Reaction
from conformance.http1 import authority
from conformance.scenario import GRPC, WEBSOCKET, Probe, Request
from conformance.wire import Way

PATIENCE = 5.0  # seconds for an answer that should come
DROP_PATIENCE = 0.4  # seconds for one that should not: one SYN, and no more by the time
FIRST_PORT, LAST_PORT = 20000, 32767

# curl's exit codes (its man page), where they are not "failed"
CURL_REACTIONS = {
    7: Reaction.REFUSED,
    28: Reaction.TIMEOUT,
    52: Reaction.RESET,  # empty reply
    56: Reaction.RESET,  # receiving failed
    16: Reaction.RESET,  # HTTP/2 framing
    92: Reaction.RESET,  # HTTP/2 stream
}
CURL_REPORT = '%{stderr}{"about":%{json},"headers":%{header_json}}'


class Ports:
    """Hands out client ports, each once."""

    def __init__(self) -> None:
        self._next = FIRST_PORT

    def take(self) -> int:
        if self._next > LAST_PORT:
            raise RuntimeError(f"a run may use no more than {LAST_PORT - FIRST_PORT} client ports")
        self._next += 1
        return self._next - 1


@dataclass(frozen=True, slots=True)
class Call:
    """A probe made concrete: from which namespace and address, to which address."""

    probe: Probe
    namespace: str
    local: tuple[str, int]
    remote: tuple[str, int]

    @property
    def patience(self) -> float:
        return DROP_PATIENCE if self.probe.expect in UNANSWERED else PATIENCE

    @property
    def way(self) -> Way:
        return Way(self.namespace, self.local, self.remote)

    def command(self) -> list[str]:
        """The command line that repeats this call, or comes nearest to it."""
        probe = self.probe
        if probe.protocol == "icmp":
            argv = ["ping", "-n", "-c", "1", "-W", f"{self.patience:g}", "-I", self.local[0], self.remote[0]]
        elif probe.protocol != "tcp":
            tool = {"udp": ["nc", "-u"], "sctp": ["ncat", "--sctp"]}[probe.protocol]
            argv = [*tool, "-p", str(self.local[1]), *map(str, self.remote)]
        else:
            assert probe.request is not None
            argv = curl(probe.request, self.local, self.remote, self.patience)
        return netns.inside(self.namespace, argv)

    def __str__(self) -> str:
        return shlex.join(self.command())


def curl(request: Request, local: tuple[str, int], remote: tuple[str, int], patience: float) -> list[str]:
    """curl's arguments for a request that goes out exactly as written."""
    argv = ["curl", "-s", "--path-as-is", "--globoff", "--noproxy", "*", "--local-port", str(local[1])]
    argv += ["--interface", f"host!{local[0]}"]
    argv += ["--connect-timeout", f"{patience:g}", "--max-time", f"{patience:g}"]
    argv += ["--http2-prior-knowledge"] if request.http == "2" else ["--http1.1"]
    argv += ["--head"] if request.method == "HEAD" else ["-X", request.method]
    if request.host:
        argv += ["-H", f"Host: {request.host}"]
    for name, value in request.headers:
        argv += ["-H", f"{name}: {value}" if value else f"{name};"]
    if request.chunked:
        argv += ["-T", "-"]  # the length of standard input is not known
    elif request.body is not None:
        argv += ["--data-raw", request.body]
    return [*argv, f"http://{authority(*remote)}{request.path}"]


async def ask(call: Call) -> Answer:
    """Make the call and say how it ended."""
    probe = call.probe
    if probe.protocol == "icmp":
        return await (_ping(call) if probe.icmp_type < 0 else wire.icmp(call.way, probe.icmp_type, call.patience))
    if probe.protocol == "udp":
        return await wire.datagram(call.way, call.patience)
    if probe.protocol == "sctp":
        return await wire.sctp(call.way, call.patience)
    return await _request(call)


async def _request(call: Call) -> Answer:
    request, host = call.probe.request, authority(*call.remote)
    assert request is not None
    if request.raw:
        return await wire.say(call.way, request, host, call.patience)
    if request.http == WEBSOCKET:
        return await wire.upgrade(call.way, request, host, call.patience)
    if request.http == GRPC:
        return await rpc.call(call.way, request, host, call.patience)
    return await _curl(call)


async def _curl(call: Call) -> Answer:
    assert call.probe.request is not None
    argv = call.command()
    stdin = (call.probe.request.body or "").encode() if call.probe.request.chunked else None
    code, out, report = await _run([*argv[:-1], "-w", CURL_REPORT, argv[-1]], call.patience + 2.0, stdin)
    try:
        facts = json.loads(report[report.index(b'{"about"') :])
    except ValueError:
        return Answer(Reaction.FAILED, note=report.decode("utf-8", "replace").strip() or f"curl ended with {code}")
    note = facts["about"]["errormsg"] or ""
    if code:
        return Answer(CURL_REACTIONS.get(code, Reaction.FAILED), note=note)
    headers = tuple((name.lower(), ", ".join(values)) for name, values in facts["headers"].items())
    body = "" if call.probe.request.method == "HEAD" else out.decode("utf-8", "replace")
    return Answer(Reaction.ANSWERED, facts["about"]["http_code"], body, headers, note)


async def _ping(call: Call) -> Answer:
    code, out, complaint = await _run(call.command(), call.patience + 2.0)
    if code == 0:
        return Answer(Reaction.ANSWERED)
    if code == 1:  # "no replies received"
        return Answer(Reaction.TIMEOUT, note=out.decode().strip().split("\n")[-1])
    return Answer(Reaction.FAILED, note=complaint.decode().strip())


async def _run(argv: Sequence[str], patience: float, stdin: bytes | None = None) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(patience):
            out, complaint = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        out, complaint = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, out, complaint
