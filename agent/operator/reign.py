"""What the leader does, from the moment it leads to the moment it does not: watches, status, events, garbage.

Made anew for each time of leading: what a former leader knew may be wrong by now.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, Final

from agent.cluster.client import ApiServer
from agent.cluster.list_watch import ListWatch, Query
from agent.cluster.node_report import NodeReport, from_body
from agent.cluster.resources import Resource
from agent.operator import watching
from agent.operator.announcer import Announcer, Note
from agent.operator.collector import Collector, Holdings
from agent.operator.conditions import ENFORCED, VALID
from agent.operator.figures import Figures
from agent.operator.garbage import Labelled, Use
from agent.operator.pen import Pen
from agent.operator.rollout import Rollout, has_status
from agent.operator.scribe import Scribe
from agent.operator.settings import OperatorSettings
from agent.operator.slicer import Slicer
from agent.operator.watching import Told
from policies.objects import PodKey

LOOK_SECONDS: Final = 30.0  # between looks at all policies: nodes may have become silent

Raw = dict[str, Any]
log = logging.getLogger("deflector.operator")


class Reign:
    """`run` is all of it."""

    def __init__(self, server: ApiServer, pen: Pen, settings: OperatorSettings) -> None:
        self.rollout = Rollout()
        self.announcer = Announcer(pen, settings.identity)
        self.scribe = Scribe(self.rollout, pen, self._conditions_written)
        self.holdings = Holdings()
        self.collector = Collector(pen, self.holdings, settings.garbage, lambda: self.is_complete)
        self.slicer = Slicer(pen) if settings.slices else None
        self._pen = pen
        self._server = server
        self._settings = settings
        self._listed: set[Resource] = set()
        self._endpoints: dict[PodKey, Raw] = {}  # kept whole only for slices
        self._followed = tuple(q for q in watching.QUERIES if q is not watching.SLICES or settings.slices)
        self._troubles: dict[Resource, str] = {}
        self._strangers: dict[str, NodeReport] = {}  # of a node that we are yet to be told of, or that is gone
        self._told: dict[str, str] = {}  # the last note of each policy

    @property
    def is_complete(self) -> bool:
        """Whether every kind has been told once."""
        return len(self._listed) == len(self._followed)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for query in self._followed:
                follow = ListWatch(self._server, query, self._sink(query)).run()
                tasks.create_task(follow, name=f"watch {query.resource}")
            tasks.create_task(self.scribe.run(), name="conditions")
            tasks.create_task(self.announcer.run(), name="events")
            tasks.create_task(self.collector.run(), name="garbage")
            tasks.create_task(self._look_again(), name="looks")
            if self.slicer is not None:
                tasks.create_task(self.slicer.run(), name="slices")

    def figures(self, version: str) -> Figures:
        """For the page of metrics."""
        policies: Counter[tuple[str, str, str]] = Counter()
        for policy in self.rollout.policies().values():
            told = policy.conditions.get(ENFORCED, {}).get("status") or "Unknown"
            shown = str(told) if has_status(policy.key.kind) else ""
            policies[policy.key.kind, policy.valid.status, shown] += 1
        now = asyncio.get_running_loop().time()
        members = self.rollout.fleet.members().values()
        silent = len(self.rollout.fleet.silent(now))
        held, announcer = self.holdings, self.announcer
        return Figures(
            version=version,
            cluster=self._settings.cluster,
            leading=True,
            policies=policies,
            nodes=Counter(
                reporting=len(members) - silent,
                silent=silent,
                incomplete=sum(not member.report.complete for member in members),
            ),
            conditions_waiting=self.scribe.waiting,
            written=self._pen.written,
            events=Counter(told=announcer.told, dropped=announcer.dropped),
            removed=self.collector.removed,
            held=Counter(
                CiliumIdentity=len(held.identities),
                CiliumEndpoint=len(held.endpoints),
                Pod=len(held.pods),
                Node=len(held.nodes),
            ),
        )

    # What watches tell

    def _sink(self, query: Query) -> Told:
        kind = query.resource.kind
        update, gone = {
            watching.REPORTS.resource.kind: (self._report, self._report_gone),
            watching.NODES.resource.kind: (self._node, self._node_gone),
            watching.PODS.resource.kind: (self._pod, self._pod_gone),
            watching.IDENTITIES.resource.kind: (self._identity, self._identity_gone),
            watching.ENDPOINTS.resource.kind: (self._endpoint, self._endpoint_gone),
            watching.SLICES.resource.kind: (self._slice, self._slice_gone),
        }.get(kind, (None, None))
        if update is None or gone is None:
            return self._policy_sink(query.resource)
        return Told(query.resource, update, gone, self._all_told, self._trouble)

    def _policy_sink(self, resource: Resource) -> Told:
        kind, clock = resource.kind, asyncio.get_running_loop().time

        def update(key: PodKey, raw: Raw) -> None:
            raw["apiVersion"], raw["kind"] = resource.api_version, kind  # items of a list do not say it
            name = self.rollout.update(kind, key, raw, clock())
            self._refusal(name)
            if self.rollout.is_complete:
                self.scribe.look(name)

        def gone(key: PodKey) -> None:
            name = self.rollout.gone(kind, key, clock())
            self._told.pop(name, None)
            self.scribe.look(name)

        return Told(resource, update, gone, self._all_told, self._trouble)

    def _all_told(self, resource: Resource) -> None:
        is_news = resource not in self._listed
        self._listed.add(resource)
        if resource.kind in self.rollout.timelines:
            self.rollout.listed(resource.kind)
        if is_news and self.is_complete:
            for name in self.rollout.fleet.members().keys() - self.holdings.nodes:
                self._strangers[name] = self.rollout.fleet.members()[name].report
                self.rollout.fleet.remove(name)
            log.info(
                "everything is known: %d policies, %d nodes report", len(list(self.rollout)), len(self.rollout.fleet)
            )
            if self.slicer is not None:
                self.slicer.complete(self._endpoints)
            self.scribe.look_at_all()

    def _trouble(self, resource: Resource, words: str) -> None:
        """A lost server is one line, and not one for each kind."""
        before = set(self._troubles.values())
        if words:
            self._troubles[resource] = words
            if words not in before:
                log.warning("%s", words)
        elif self._troubles.pop(resource, None) and not self._troubles:
            log.info("the API server answers again")

    def _report(self, key: PodKey, raw: Raw) -> None:
        self.holdings.reports[key.name] = str(raw["metadata"].get("uid") or "")
        report = from_body(raw)
        if report is None:
            log.warning("DeflectorNode %s is not as an agent writes it, and is ignored", key.name)
            return
        if self.is_complete and key.name not in self.holdings.nodes:
            self._strangers[key.name] = report
        else:
            self._count(report)

    def _count(self, report: NodeReport) -> None:
        concerns_all = self.rollout.changes_counts(report)
        touched = self.rollout.report(report, asyncio.get_running_loop().time())
        if not self.is_complete:
            return
        for name in sorted(touched):
            self._degradation(name)
            self.scribe.look(name)
        if concerns_all:
            self.scribe.look_at_all()

    def _report_gone(self, key: PodKey) -> None:
        self.holdings.reports.pop(key.name, None)
        self._strangers.pop(key.name, None)
        if self.rollout.fleet.remove(key.name) and self.is_complete:
            self.scribe.look_at_all()

    def _node(self, key: PodKey, raw: Raw) -> None:
        self.holdings.nodes.add(key.name)
        if (report := self._strangers.pop(key.name, None)) is not None:
            self._count(report)

    def _node_gone(self, key: PodKey) -> None:
        """What it has reported counts no more; the report itself is garbage."""
        self.holdings.nodes.discard(key.name)
        if self.rollout.fleet.remove(key.name) and self.is_complete:
            self.scribe.look_at_all()

    def _pod(self, key: PodKey, raw: Raw) -> None:
        self.holdings.pods.add(key)

    def _pod_gone(self, key: PodKey) -> None:
        self.holdings.pods.discard(key)

    def _identity(self, key: PodKey, raw: Raw) -> None:
        self.holdings.identities[key] = Labelled.of(raw)

    def _identity_gone(self, key: PodKey) -> None:
        self.holdings.identities.pop(key, None)

    def _endpoint(self, key: PodKey, raw: Raw) -> None:
        self.holdings.endpoints[key] = Use.of(raw)
        if self.slicer is not None:
            self._endpoints[key] = raw
            self.slicer.endpoint(key, raw)

    def _endpoint_gone(self, key: PodKey) -> None:
        self.holdings.endpoints.pop(key, None)
        if self.slicer is not None:
            self._endpoints.pop(key, None)
            self.slicer.endpoint(key, None)

    def _slice(self, key: PodKey, raw: Raw) -> None:
        if self.slicer is not None:
            self.slicer.slice(raw)

    def _slice_gone(self, key: PodKey) -> None:
        if self.slicer is not None:
            self.slicer.slice_gone(key.name)

    # What people are told

    def _refusal(self, name: str) -> None:
        """An event for a policy that is not valid; where its status says so already, people know."""
        policy = self.rollout.get(name)
        if policy is None or policy.valid.status != "False":
            return
        told = policy.conditions.get(VALID, {})
        if told.get("status") == "False" and told.get("message") == policy.valid.message:
            return
        self._note(name, "Refused", "Validate", policy.valid.message)

    def _degradation(self, name: str) -> None:
        """An event for a NetworkPolicy that nodes do not enforce: it has no conditions that would say it."""
        policy = self.rollout.get(name)
        if policy is None or has_status(policy.key.kind):
            return
        condition = self.rollout.wanted(name, asyncio.get_running_loop().time())[1]
        if condition.reason in ("Degraded", "Late"):
            self._note(name, condition.reason, "Enforce", condition.message)

    def _conditions_written(self, name: str) -> None:
        policy = self.rollout.get(name)
        enforced = policy.conditions.get(ENFORCED, {}) if policy is not None else {}
        if enforced.get("reason") in ("Degraded", "Late"):
            self._note(name, str(enforced["reason"]), "Enforce", str(enforced.get("message")))
        elif enforced.get("status") == "True" and name in self._told:
            self._note(name, "Enforced", "Enforce", str(enforced.get("message")), is_warning=False)
            del self._told[name]

    def _note(self, name: str, reason: str, action: str, words: str, *, is_warning: bool = True) -> None:
        policy = self.rollout.get(name)
        assert policy is not None
        if is_warning:
            if self._told.get(name) == words:
                return
            self._told[name] = words
            log.warning("%s: %s: %s", name, reason, words)
        self.announcer.tell(Note(policy.key, policy.uid, reason, action, words, is_warning))

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.is_complete:
                self.scribe.look_at_all()
                for name in self.rollout:
                    self._degradation(name)
