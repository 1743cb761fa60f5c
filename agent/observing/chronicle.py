"""What a node tells of itself as it changes: agent events, made from what was in force before and is now. No I/O.

A change may touch thousands of addresses; of each kind of event only the first are told, and how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final

from flow import flow_pb2

from flows.agent_events import (
    endpoint_created,
    endpoint_deleted,
    ipcache_deleted,
    ipcache_upserted,
    policy_deleted,
    policy_updated,
    regenerated,
    remark,
    started,
)
from policies.compiling.changes import changed_values
from policies.ir import Endpoint, EndpointPolicy, NodePolicy
from policies.objects import ObjectKey
from policies.rules import Policy
from policies.world import World

TOLD_MAX: Final = 100  # events of one kind that one change may bring
_POLICY_LABEL: Final = "k8s:io.cilium.k8s.policy."
Tell = Callable[[flow_pb2.AgentEvent], None]


class Chronicle:
    """`tell` takes the events, `now_ns` gives Unix time in ns."""

    def __init__(self, tell: Tell, now_ns: Callable[[], int]) -> None:
        self._tell, self._now_ns = tell, now_ns
        self._node = NodePolicy(revision=0)
        self._rules: Mapping[ObjectKey, Policy] = {}
        self._failure = ""

    def started(self) -> None:
        """The node works from now on."""
        self._tell(started(self._now_ns()))

    def failed(self, why: str) -> None:
        """A regeneration failed: the last good state stays in force. Told once for each reason in a row."""
        if why != self._failure:
            self._failure = why
            labels = _labels(self._node)
            self._all("endpoints", (regenerated(e.id, labels[e.group], why) for e in self._node.endpoints))

    def enforced(self, world: World, node: NodePolicy) -> None:
        """This is in force now."""
        before, rules = self._node, self._rules
        self._node, self._rules = node, world.policies
        self._all("policies", _policies(rules, world.policies, node.revision))
        self._all("addresses", _addresses(before, node))
        self._all("endpoints", _endpoints(before, node))
        self._all("endpoints", _regenerated(before, node, bool(self._failure)))
        self._failure = ""

    def _all(self, what: str, events: Iterable[flow_pb2.AgentEvent]) -> None:
        events = iter(events)
        for event in islice(events, TOLD_MAX):
            self._tell(event)
        if left := sum(1 for _ in events):
            self._tell(remark(what, f"{left} more changes are not told one by one"))


def _policies(
    before: Mapping[ObjectKey, Policy], now: Mapping[ObjectKey, Policy], revision: int
) -> Iterable[flow_pb2.AgentEvent]:
    if before is now:
        return
    for key in sorted(before.keys() - now.keys()):
        yield policy_deleted(_policy_labels(before[key]), revision, len(before[key].rules))
    # most are the same objects as before, which is told apart more quickly than what they hold
    changed = (key for key, policy in now.items() if before.get(key) is not policy and before.get(key) != policy)
    for key in sorted(changed):
        yield policy_updated(_policy_labels(now[key]), revision, len(now[key].rules))


def _policy_labels(policy: Policy) -> list[str]:
    """As Cilium labels the rules of a policy object, sorted."""
    labels = [f"{_POLICY_LABEL}derived-from={policy.kind}", f"{_POLICY_LABEL}name={policy.name}"]
    return [*labels, f"{_POLICY_LABEL}namespace={policy.namespace}"] if policy.namespace else labels


def _addresses(before: NodePolicy, now: NodePolicy) -> Iterable[flow_pb2.AgentEvent]:
    gone, come = changed_values(before.addresses, now.addresses)
    old = {address.prefix: address.identity for address in gone}
    new = {address.prefix: address.identity for address in come}
    for prefix in sorted(old.keys() - new.keys()):
        yield ipcache_deleted(prefix, old[prefix])
    for prefix in sorted(prefix for prefix, identity in new.items() if old.get(prefix) != identity):
        yield ipcache_upserted(prefix, new[prefix], old.get(prefix))


def _endpoints(before: NodePolicy, now: NodePolicy) -> Iterable[flow_pb2.AgentEvent]:
    old, new, were, are = _by_id(before), _by_id(now), _labels(before), _labels(now)
    for number in sorted(old.keys() - new.keys()):
        gone = old[number]
        yield endpoint_deleted(number, gone.namespace, gone.name, were[gone.group])
    for number in sorted(new.keys() - old.keys()):
        come = new[number]
        yield endpoint_created(number, come.namespace, come.name, are[come.group])


def _regenerated(before: NodePolicy, now: NodePolicy, had_failed: bool) -> Iterable[flow_pb2.AgentEvent]:
    """Whoever is new, or has another policy than before; after a failure, all."""
    known, old, new, labels = _by_id(before), _policies_of(before), _policies_of(now), _labels(now)
    for number, endpoint in sorted(_by_id(now).items()):
        was = known.get(number)
        same = was is not None and was.group == endpoint.group and old.get(was.group) == new.get(endpoint.group)
        if had_failed or not same:
            yield regenerated(number, labels[endpoint.group])


def _by_id(node: NodePolicy) -> dict[int, Endpoint]:
    return {endpoint.id: endpoint for endpoint in node.endpoints}


def _policies_of(node: NodePolicy) -> dict[int, EndpointPolicy]:
    return {policy.group: policy for policy in node.policies}


class _Labels(dict[int, tuple[str, ...]]):
    """By group; none of a group without policy."""

    def __missing__(self, group: int) -> tuple[str, ...]:
        return ()


def _labels(node: NodePolicy) -> _Labels:
    return _Labels({policy.group: policy.labels for policy in node.policies})
