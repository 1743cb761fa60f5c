"""From saving a policy file to the first request judged by it, on one live keep-alive connection in a tight loop.

Policies alternate between allowing and not allowing one path. The clock starts before the file is written and stops
when the answer with the new verdict is complete; the verdict must then stay, and the connection must live.
"""

from __future__ import annotations

import random
import time

from benchmarks.connection import Answer, Connection
from benchmarks.errors import NotMeasured
from benchmarks.policy import http_policy
from benchmarks.samples import median, percentile
from benchmarks.stage import EDITED_PORT, Stage
from conformance.manifests import policy_file

EDITS = 120
SETTLE = (0.02, 0.08)  # seconds of requests between two edits, at random: edits are not to keep step with a batch timer
ENFORCED = 10.0  # seconds after which an edit counts as lost
PATH, OTHER_PATH = "/v1/edited", "/v1/other"
STATUS = {PATH: 200, OTHER_PATH: 403}  # what PATH gets while the policy allows this path


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    stage.node.await_ready()
    stage.note(f"enforcement: {EDITS} edits under traffic")
    chance = random.Random(2)
    _save(stage, PATH)
    stage.await_allowed(EDITED_PORT, PATH, ENFORCED)
    taken = []
    with stage.connect(EDITED_PORT) as connection:
        for number in range(EDITS):
            allowed = PATH if number % 2 else OTHER_PATH
            saved = time.monotonic()
            _save(stage, allowed)
            first = _await_status(connection, STATUS[allowed], saved + ENFORCED)
            taken.append((first.answered - saved) * 1e3)
            _expect_status(connection, STATUS[allowed], first.answered + chance.uniform(*SETTLE))
    return {"policy_to_enforced_p50_ms": median(taken), "policy_to_enforced_p99_ms": percentile(taken, 0.99)}


def _save(stage: Stage, path: str) -> None:
    stage.deflected.manifests.write(policy_file("edited"), http_policy("edited", EDITED_PORT, [path]))


def _await_status(connection: Connection, wanted: int, deadline: float) -> Answer:
    while (answer := connection.get(PATH)).status != wanted:
        if answer.answered > deadline:
            raise NotMeasured(f"an edit is not enforced after {ENFORCED:.0f} s: requests still get {answer.status}")
    return answer


def _expect_status(connection: Connection, wanted: int, until: float) -> None:
    while (answer := connection.get(PATH)).answered < until:
        if answer.status != wanted:
            raise NotMeasured(f"a request got {answer.status} after the edit that makes it {wanted} was in force")
