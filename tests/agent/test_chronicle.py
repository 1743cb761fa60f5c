"""What a node tells of itself: agent events for what has changed, and not for what has not."""

from __future__ import annotations

from dataclasses import replace

from flow import flow_pb2

from agent.observing.chronicle import TOLD_MAX, Chronicle
from policies.ir import Address, DirectionPolicy, Endpoint, EndpointPolicy, NodePolicy
from policies.objects import ObjectKey
from policies.rules import Policy
from policies.world import World

NONE = DirectionPolicy()
DEATHSTAR = EndpointPolicy(4711, ("k8s:org=empire",), NONE, NONE)
NODE = NodePolicy(
    revision=1,
    policies=(DEATHSTAR,),
    endpoints=(Endpoint(17, 4711, "default", "deathstar-1", ("10.0.0.1",)),),
    addresses=(Address("10.0.0.1/32", 4711),),
)
KEY = ObjectKey("CiliumNetworkPolicy", "default", "landing")
RULE = Policy("CiliumNetworkPolicy", "default", "landing", ())
WORLD = World(policies={KEY: RULE})


class Told:
    """A chronicle, and what it told since it was last asked."""

    def __init__(self) -> None:
        self._events: list[flow_pb2.AgentEvent] = []
        self.chronicle = Chronicle(self._events.append, lambda: 5_000_000_000)

    def news(self) -> list[str]:
        said = [flow_pb2.AgentEventType.Name(event.type) for event in self._events]
        self._events.clear()
        return said

    def last(self) -> flow_pb2.AgentEvent:
        return self._events[-1]


def at_work() -> Told:
    told = Told()
    told.chronicle.enforced(WORLD, NODE)
    told.news()
    return told


def test_from_the_start() -> None:
    told = Told()
    told.chronicle.started()
    assert told.last().agent_start.time.seconds == 5
    told.chronicle.enforced(WORLD, NODE)
    assert told.news() == [
        *("AGENT_STARTED", "POLICY_UPDATED", "IPCACHE_UPSERTED", "ENDPOINT_CREATED", "ENDPOINT_REGENERATE_SUCCESS")
    ]


def test_nothing_is_said_of_what_has_not_changed() -> None:
    told = at_work()
    told.chronicle.enforced(WORLD, replace(NODE, revision=2))
    assert told.news() == []


def test_a_policy_is_named_by_its_labels() -> None:
    told = at_work()
    told.chronicle.enforced(World(), replace(NODE, revision=2))
    update = told.last().policy_update
    assert list(update.labels) == [
        "k8s:io.cilium.k8s.policy.derived-from=CiliumNetworkPolicy",
        "k8s:io.cilium.k8s.policy.name=landing",
        "k8s:io.cilium.k8s.policy.namespace=default",
    ]
    assert (update.revision, told.news()) == (2, ["POLICY_DELETED"])


def test_an_endpoint_with_another_policy_and_one_that_went() -> None:
    told = at_work()
    told.chronicle.enforced(WORLD, replace(NODE, policies=(replace(DEATHSTAR, ingress=DirectionPolicy(True)),)))
    assert list(told.last().endpoint_regenerate.labels) == ["k8s:org=empire"]
    assert told.news() == ["ENDPOINT_REGENERATE_SUCCESS"]
    told.chronicle.enforced(WORLD, NodePolicy(revision=3))
    assert told.last().endpoint_update.pod_name == "deathstar-1"
    assert told.news() == ["IPCACHE_DELETED", "ENDPOINT_DELETED"]


def test_an_address_that_changes_hands() -> None:
    told = at_work()
    told.chronicle.enforced(WORLD, replace(NODE, addresses=(Address("10.0.0.1/32", 5),)))
    update = told.last().ipcache_update
    assert (update.cidr, update.identity, update.old_identity.value) == ("10.0.0.1/32", 5, 4711)


def test_a_failure_is_told_once_and_its_end_too() -> None:
    told = at_work()
    for _ in range(3):
        told.chronicle.failed("no space left on device")
    assert told.last().endpoint_regenerate.error == "no space left on device"
    assert told.news() == ["ENDPOINT_REGENERATE_FAILURE"]
    told.chronicle.enforced(WORLD, NODE)
    assert told.news() == ["ENDPOINT_REGENERATE_SUCCESS"]


def test_a_flood_of_addresses_is_summed_up() -> None:
    told = at_work()
    many = tuple(Address(f"10.1.{number // 256}.{number % 256}/32", 5) for number in range(TOLD_MAX + 50))
    told.chronicle.enforced(WORLD, replace(NODE, addresses=(*NODE.addresses, *many)))
    assert told.last().unknown.notification == "50 more changes are not told one by one"
    assert len(told.news()) == TOLD_MAX + 1
