"""An agent of one node in a cluster of 500 nodes, 10,000 pods and 1,000 policies: start, memory, one pod's coming.

The API server is the tests' own (held against a real one there), in a thread of the bench, with a socket in the node's
network namespace; the agent is `deflector agent` with the real kernel and Envoy. CPU is of the agent's threads, by the
scheduler's own account (/proc/PID/task/*/schedstat), less what it uses when nothing happens: of a pod somewhere in the
cluster, of one more replica on this node, and of the first pod here of its labels, whose HTTP rules make a listener.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.cluster.resources import Resource
from benchmarks.child import Child
from benchmarks.cluster_world import OWN_NODE, OWN_PODS, PODS, everything, other_pod, own_address, own_pod
from benchmarks.errors import NotMeasured
from benchmarks.node import COMMAND, ask_status
from benchmarks.stage import PREFIX, Stage, twin_blueprint
from benchmarks.usage import peak_rss_mb, rss_mb
from conformance import netns
from conformance.galaxy import NODE, Galaxy, galaxy
from tests.fakes.apiserver import ApiServerFake

PORT = 6443
START = 60.0  # seconds until it is given up
COMING = 20  # pods of each sort that come, one by one
APART = 0.5  # seconds between two of them: no two in one batch
KUBECONFIG = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{PORT}"}}],
    "users": [{"name": "u", "user": {}}],
}


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    with ExitStack() as stack:
        stage.note("cluster: making 10,000 pods that are not there")
        made = stack.enter_context(galaxy(twin_blueprint(), prefix=PREFIX))
        _make_places(made)
        server = stack.enter_context(_served(made))
        stage.note("cluster: starting the agent of one of 500 nodes")
        began = time.monotonic()
        agent = stack.enter_context(_agent(made))
        _until_ready(made, agent, OWN_PODS)
        start = time.monotonic() - began
        time.sleep(5)  # what is said of this node's pods is said by then
        figures = {"cluster_start_s": start, "cluster_rss_mb": rss_mb(agent.pid)}
        stage.note("cluster: pods come, one by one")
        first, more = OWN_PODS, OWN_PODS + COMING
        comings: dict[str, Callable[[int], None]] = {
            "cluster_pod_cpu_ms": lambda number: server(*other_pod(PODS + number)),
            "cluster_own_pod_cpu_ms": lambda number: server(*own_pod(more + number, app=number % OWN_PODS)),
            "cluster_first_pod_cpu_ms": lambda number: server(*own_pod(first + number)),
        }
        idle = _spent(agent.pid, lambda number: None)
        figures |= {name: _spent(agent.pid, come) - idle for name, come in comings.items()}
        _until_ready(made, agent, OWN_PODS + 2 * COMING)
        figures["cluster_peak_rss_mb"] = peak_rss_mb(agent.pid)
        return figures


def _make_places(made: Galaxy) -> None:
    """A veth and a host route for each pod of the node, and for those to come."""
    lines = []
    for number in range(OWN_PODS + 2 * COMING):
        name = f"sim{number}"
        lines += [f"link add {name} type veth peer name {name}p", f"link set {name} up", f"link set {name}p up"]
        lines.append(f"route add {own_address(number)}/32 dev {name}")
    netns.ip_batch(made.namespace(NODE), lines)


@contextmanager
def _served(made: Galaxy) -> Iterator[Callable[[Resource, dict[str, Any]], None]]:
    """The API server, in the node's namespace; the value puts an object there."""
    listener = netns.socket_in(made.namespace(NODE), socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", PORT))
    fake = ApiServerFake(history=100_000)
    for resource, raw in everything():
        fake.put(resource, raw)
    loop = asyncio.new_event_loop()
    ended: asyncio.Event = asyncio.Event()
    is_up = threading.Event()

    async def serve() -> None:
        async with fake.serve(listener=listener):
            is_up.set()
            await ended.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # cancels and awaits what is left at the end
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    is_up.wait(10)

    def put(resource: Resource, raw: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(fake.put, resource, raw)

    try:
        yield put
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        listener.close()


@contextmanager
def _agent(made: Galaxy) -> Iterator[Child]:
    config = made.folder / "kubeconfig"
    config.write_text(json.dumps(KUBECONFIG))
    folders = ["--run-dir", str(made.run_dir), "--bpffs", str(made.bpffs)]
    argv = [str(COMMAND), "agent", "--node-name", OWN_NODE, "--kubeconfig", str(config), "--start-proxies"]
    child = Child(
        "deflector agent", made.namespace(NODE), [*argv, *folders, "--concurrency", "1"], made.folder / "agent.log"
    )
    try:
        yield child
    finally:
        child.stop()
        unload = [str(COMMAND), "bpf", "unload", *folders]
        Child("bpf unload", made.namespace(NODE), unload, made.folder / "unload.log").wait()
        _end_envoy(made.run_dir)


def _end_envoy(run_dir: Path) -> None:
    """An agent that ends leaves it running."""
    with suppress(OSError, ValueError, KeyError):
        os.kill(int(json.loads((run_dir / "envoy.pid").read_text())["pid"]), signal.SIGTERM)


def _until_ready(made: Galaxy, agent: Child, endpoints: int) -> None:
    deadline = time.monotonic() + START
    seen: dict[str, Any] | None = None
    while time.monotonic() < deadline:
        agent.check()
        seen = ask_status(made.run_dir)
        if seen is not None and seen["ready"] and not seen["pending"] and len(seen["endpoints"]) >= endpoints:
            return
        time.sleep(0.1)
    words = "it does not answer" if seen is None else f"{len(seen['endpoints'])} endpoints; {seen['problems'][:3]}"
    raise NotMeasured(f"the agent does not enforce {endpoints} pods after {START:.0f} s: {words}")


def _spent(pid: int, act: Callable[[int], None]) -> float:
    """Milliseconds of CPU for each of COMING acts."""
    before = _cpu_ns(pid)
    for number in range(COMING):
        act(number)
        time.sleep(APART)
    return (_cpu_ns(pid) - before) / 1e6 / COMING


def _cpu_ns(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            total += int((task / "schedstat").read_text().split()[0])
    return total
