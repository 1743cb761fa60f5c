"""Starting, and dying: how long until a fresh node and a restarted agent enforce, and what requests notice.

The agent is killed with SIGKILL while a live connection and new connections keep asking; an edit saved while it is dead
tells when its successor is at work.
"""

from __future__ import annotations

import signal
import time

from benchmarks.errors import NotMeasured
from benchmarks.policy import http_policy
from benchmarks.stage import HTTP_PORT, PATH, RESTART_PORT, Stage
from conformance.manifests import policy_file

ENFORCED = 60.0  # seconds
PAUSE = 0.005  # seconds between requests: the agent that starts needs the core more than we do
DENIED_PATH = "/v1/exhaust-port"
BEFORE, AFTER = "/v1/before", "/v1/after"


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    node = stage.node
    node.await_ready()
    stage.note("restart: from nothing to enforcing")
    node.child.stop(signal.SIGINT)
    began = time.monotonic()
    node.respawn()
    start = _until_denied(stage) - began
    node.await_ready()
    stage.note("restart: killing the agent under traffic")
    _save(stage, BEFORE)
    stage.await_allowed(RESTART_PORT, BEFORE, ENFORCED)
    restart, failed = _kill(stage)
    node.await_ready()
    return {"agent_start_s": start, "agent_restart_s": restart, "agent_restart_failed_requests": failed}


def _save(stage: Stage, path: str) -> None:
    stage.deflected.manifests.write(policy_file("restart"), http_policy("restart", RESTART_PORT, [path]))


def _until_denied(stage: Stage) -> float:
    """When the first new connection gets its request denied: until then nothing is enforced."""
    deadline = time.monotonic() + ENFORCED
    while time.monotonic() < deadline:
        stage.node.child.check()
        try:
            with stage.connect(HTTP_PORT) as connection:
                answer = connection.get(DENIED_PATH)
                if answer.status == 403:
                    return answer.answered
        except NotMeasured:
            pass  # a connection that was direct is reset when it becomes the proxy's
        time.sleep(PAUSE)
    raise NotMeasured(f"a fresh node does not enforce after {ENFORCED:.0f} s")


def _kill(stage: Stage) -> tuple[float, int]:
    """Seconds from the new agent's start to its first deed, and how many allowed requests failed meanwhile."""
    node = stage.node
    failed = 0
    with stage.connect(RESTART_PORT) as edited, stage.connect(HTTP_PORT) as live:
        node.child.kill()
        _save(stage, AFTER)
        began = time.monotonic()
        node.respawn()
        while (answer := edited.get(AFTER)).status != 200:
            node.child.check()
            failed += (live.get(PATH).status != 200) + _fails_anew(stage)
            if answer.answered > began + ENFORCED:
                raise NotMeasured(f"a restarted agent enforces no edit after {ENFORCED:.0f} s")
            time.sleep(PAUSE)
    return answer.answered - began, failed


def _fails_anew(stage: Stage) -> bool:
    """Whether a request on a new connection fails."""
    try:
        with stage.connect(HTTP_PORT) as fresh:
            return fresh.get(PATH).status != 200
    except NotMeasured:
        return True
