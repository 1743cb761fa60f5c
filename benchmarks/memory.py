"""Memory of the agent: right after its start, and after 20,000 requests while a follower watches."""

from __future__ import annotations

from benchmarks.follower import follower
from benchmarks.load import press
from benchmarks.stage import CLIENT, HTTP_PORT, PATH, SERVER, Stage
from benchmarks.usage import pss_mb, rss_mb

REQUESTS = 20_000


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark. Runs before the others, so that the node is a fresh one."""
    stage.node.await_ready()
    agent, made = stage.node.agent_pid, stage.deflected
    start = rss_mb(agent)
    url = f"http://{made.address(SERVER, 4)}:{HTTP_PORT}{PATH}"
    made_requests = 0
    with follower(stage.node.hubble_socket) as watching:
        while made_requests < REQUESTS:
            stage.note(f"memory: {made_requests:,} of {REQUESTS:,} requests, {watching.flows:,} flows followed")
            made_requests += press(made.namespace(CLIENT), url, seconds=1).requests
        loaded = rss_mb(agent)
    return {
        "agent_rss_mb": max(start, loaded),
        "agent_rss_start_mb": start,
        "agent_rss_loaded_mb": loaded,
        "agent_pss_mb": pss_mb(agent),
    }
