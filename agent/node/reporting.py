"""What this node tells the operator of the policies that it enforces, out of what the policy loop knows."""

from __future__ import annotations

import asyncio
from typing import Final

from agent.cluster.node_report import Fault, NodeReport, report
from agent.cluster.reporter import Reporter
from agent.node.policy_loop import Enforced
from policies.objects import POLICY_KINDS, ObjectKey

PATIENCE_SECONDS: Final = 5.0  # for what a late proxy or the next try will mend


def report_of(node_name: str, enforced: Enforced) -> NodeReport:
    """Policies that have a fault of their own are named with it; what is wrong besides is the node's."""
    faults = [Fault(policy, words) for policy, words in enforced.behind.items()]
    for error in enforced.compile_errors:
        if error.kind in POLICY_KINDS:
            faults.append(Fault(str(ObjectKey(error.kind, error.namespace, error.name)), str(error)))
    problems = enforced.degraded if not enforced.complete and not enforced.behind else ()
    return report(node_name, enforced.files, faults=faults, problems=problems)


class Reporting:
    """`take` each new state. One that is complete is reported at once, another one when it has lasted."""

    def __init__(self, node_name: str, reporter: Reporter) -> None:
        self._node_name = node_name
        self._reporter = reporter
        self._waiting: asyncio.TimerHandle | None = None
        self._newest = Enforced()

    def take(self, enforced: Enforced) -> None:
        """This is enforced now. A node that enforces nothing yet has nothing to say."""
        self._newest = enforced
        if not enforced.revision:
            return
        said = report_of(self._node_name, enforced)
        if said.complete:
            self._stop_waiting()
            self._reporter.take(said)
        elif self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._say_so)

    def _say_so(self) -> None:
        self._waiting = None
        said = report_of(self._node_name, self._newest)
        self._reporter.take(said)
        if not said.complete:  # what follows is no surprise any more
            self._waiting = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._say_so)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
