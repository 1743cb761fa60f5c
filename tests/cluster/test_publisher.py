"""What a node tells of its own pods: agreed numbers and endpoints, made once, kept current, never fought over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.cluster.published import Wanted, identity_body, wanted
from agent.cluster.publisher import Publisher
from agent.cluster.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES
from policies.compiling.agreement import Agreement
from policies.compiling.compiler import Compiler
from policies.compiling.identity import IdentityAllocator
from policies.objects import Identity, Namespace, Node, Pod, PodKey
from policies.reading.readers import read_object
from policies.types import Protocol
from policies.world import World
from tests.cluster.stage import IS_REAL, Cluster, a_cluster, until
from tests.fakes.apiserver import Refusal

pytestmark = pytest.mark.skipif(IS_REAL, reason="identities are not of a namespace: they would stay")
SHIP = {"app": "ship"}


class Teller:
    """A node with pods, and its publisher."""

    def __init__(self, cluster: Cluster, name: str = "here") -> None:
        self.cluster, self.name = cluster, name
        self.publisher = Publisher(cluster.api, lambda: 0.0)
        self.identities = IdentityAllocator(agreement=Agreement())
        self.compiler = Compiler(self.identities)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Teller]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.publisher.run())
            try:
                yield self
            finally:
                task.cancel()

    def tell(self, *pods: Pod) -> dict[PodKey, int]:
        """These are the pods; whatever identities the server has are known."""
        found = (read_object(raw).good for raw in self.cluster.fake.all(CILIUM_IDENTITIES))  # type: ignore[union-attr]
        agreed = {str(one.number): one for one in found if isinstance(one, Identity)}
        keyed = {PodKey(pod.namespace, pod.name): pod for pod in pods}
        space = self.cluster.namespace
        nodes = {self.name: Node(self.name, addresses=("192.0.2.1",))}
        world = World({space: Namespace(space)}, keyed, nodes=nodes, identities=agreed)
        local = {key: number for number, key in enumerate(sorted(keyed), 10) if not keyed[key].is_over}
        node = self.compiler.compile(world, local, (), 1).node
        said = wanted(world, node, self.name, self.identities.labels, {key: f"uid-{key.name}" for key in keyed})
        self.publisher.take(world, said)
        return {PodKey(e.namespace, e.name): e.group for e in node.endpoints}

    def endpoint(self, name: str) -> dict[str, Any] | None:
        return self.cluster.fake.get(CILIUM_ENDPOINTS, name, self.cluster.namespace)  # type: ignore[union-attr]


def a_pod(cluster: Cluster, name: str, address: str = "10.0.0.1", phase: str = "Running") -> Pod:
    ports = {("http", Protocol.TCP): 80}
    return Pod(cluster.namespace, name, SHIP, (address, "fd00::1"), node_name="here", phase=phase, ports=ports)


async def test_a_pod_becomes_an_identity_and_an_endpoint_that_others_can_read() -> None:
    async with a_cluster() as cluster, Teller(cluster).running() as teller:
        [number] = teller.tell(a_pod(cluster, "x")).values()
        await until(lambda: teller.endpoint("x") and cluster.fake.all(CILIUM_IDENTITIES))  # type: ignore[union-attr]
        [identity] = cluster.fake.all(CILIUM_IDENTITIES)  # type: ignore[union-attr]
        assert identity["metadata"]["name"] == str(number)
        assert identity["metadata"]["labels"]["app"] == "ship"
        assert identity["security-labels"]["k8s:io.kubernetes.pod.namespace"] == cluster.namespace
        made = teller.endpoint("x")
        assert made is not None
        assert made["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "uid-x"}]
        assert made["status"]["policy"]["ingress"] == {"enforcing": False, "state": "non-enforcing"}
        read = read_object(made).good
        assert isinstance(read, Pod)
        assert read.published is not None
        assert read.addresses == ("10.0.0.1", "fd00::1")
        assert read.ports == {("http", Protocol.TCP): 80}
        assert (read.published.number, read.published.node) == (number, "192.0.2.1")
        assert read.published.labels == teller.identities.labels(number)
        agreed = read_object(identity).good
        assert isinstance(agreed, Identity)
        assert (agreed.number, agreed.labels) == (number, read.published.labels)


@pytest.mark.parametrize("subresource", [False, True])
async def test_what_has_not_changed_is_not_said_again(subresource: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if subresource:  # as older definitions of Cilium have it
        monkeypatch.setattr("tests.fakes.apiserver.WITH_STATUS", {"CiliumEndpoint"})
    async with a_cluster() as cluster, Teller(cluster).running() as teller:
        teller.tell(a_pod(cluster, "x"), a_pod(cluster, "y", "10.0.0.2"))
        await until(lambda: teller.endpoint("x") and teller.endpoint("y"))
        before = teller.publisher.requests
        assert before == 3  # one identity, for they have the same labels
        teller.tell(a_pod(cluster, "x"), a_pod(cluster, "y", "10.0.0.2"))
        teller.tell(a_pod(cluster, "x", "10.0.0.3"), a_pod(cluster, "y", "10.0.0.2"))
        await until(lambda: "10.0.0.3" in str(teller.endpoint("x")))
        assert teller.publisher.requests == before + 1


async def test_two_nodes_with_the_same_labels_make_one_identity() -> None:
    async with a_cluster() as cluster, Teller(cluster).running() as one, Teller(cluster, "there").running() as two:
        first, second = one.tell(a_pod(cluster, "x")), two.tell(a_pod(cluster, "y", "10.0.0.2"))
        assert set(first.values()) == set(second.values())
        await until(lambda: one.endpoint("x") and one.endpoint("y"))
        assert len(cluster.fake.all(CILIUM_IDENTITIES)) == 1  # type: ignore[union-attr]
        assert not one.publisher.trouble
        assert not two.publisher.trouble


async def test_who_is_late_with_a_number_moves_on_to_the_next() -> None:
    async with a_cluster() as cluster, Teller(cluster).running() as teller:
        assert cluster.fake is not None
        [number] = teller.tell(a_pod(cluster, "x")).values()
        cluster.fake.put(CILIUM_IDENTITIES, identity_body(number, ("k8s:app=moon",)))
        await until(lambda: teller.endpoint("x"))
        [moved] = teller.tell(a_pod(cluster, "x")).values()
        assert moved == number + 1
        await until(lambda: cluster.fake.get(CILIUM_IDENTITIES, str(moved)))  # type: ignore[union-attr]
        await until(lambda: f"'id': {moved}" in str(teller.endpoint("x")))
        assert cluster.fake.get(CILIUM_IDENTITIES, str(number))["security-labels"] == {"k8s:app": "moon"}  # type: ignore[index]


async def test_an_identity_that_is_collected_while_in_use_is_made_again() -> None:
    async with a_cluster() as cluster, Teller(cluster).running() as teller:
        assert cluster.fake is not None
        [number] = teller.tell(a_pod(cluster, "x")).values()
        await until(lambda: cluster.fake.get(CILIUM_IDENTITIES, str(number)))  # type: ignore[union-attr]
        cluster.fake.remove(CILIUM_IDENTITIES, str(number))
        assert list(teller.tell(a_pod(cluster, "x")).values()) == [number]
        await until(lambda: cluster.fake.get(CILIUM_IDENTITIES, str(number)))  # type: ignore[union-attr]


async def test_an_endpoint_of_a_pod_that_is_over_is_taken_back_and_of_one_that_is_gone_left_to_its_owner() -> None:
    async with a_cluster() as cluster, Teller(cluster).running() as teller:
        teller.tell(a_pod(cluster, "x"), a_pod(cluster, "y", "10.0.0.2"))
        await until(lambda: teller.endpoint("x") and teller.endpoint("y"))
        teller.tell(a_pod(cluster, "x", phase="Succeeded"))
        await until(lambda: teller.endpoint("x") is None)
        assert teller.endpoint("y") is not None


async def test_an_endpoint_that_somebody_removes_is_made_again() -> None:
    async with a_cluster() as cluster, Teller(cluster).running() as teller:
        assert cluster.fake is not None
        teller.tell(a_pod(cluster, "x"))
        await until(lambda: teller.endpoint("x"))
        cluster.fake.remove(CILIUM_ENDPOINTS, "x", cluster.namespace)
        teller.publisher.endpoint_gone(PodKey(cluster.namespace, "x"))
        await until(lambda: teller.endpoint("x"))


async def test_a_server_that_does_not_take_it_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.cluster.publisher.PAUSES", (0.02, 0.1))
    async with a_cluster() as cluster, Teller(cluster).running() as teller:
        assert cluster.fake is not None
        cluster.fake.faults.refuse["post"] = Refusal(403, "Forbidden", "may not create")
        teller.tell(a_pod(cluster, "x"))
        await until(lambda: "may not create" in teller.publisher.trouble)
        await until(lambda: teller.endpoint("x"))  # one does not wait for the other
        cluster.fake.faults.refuse.clear()
        await until(lambda: cluster.fake.all(CILIUM_IDENTITIES) and not teller.publisher.trouble)  # type: ignore[union-attr]


async def test_requests_come_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.cluster.publisher.BURST", 5)
    async with a_cluster() as cluster:
        teller = Teller(cluster)
        teller.publisher._tokens = 5.0
        async with teller.running():
            began = asyncio.get_running_loop().time()
            teller.tell(*(a_pod(cluster, f"p{number}", f"10.0.0.{number + 1}") for number in range(14)))
            await until(lambda: len(cluster.fake.all(CILIUM_ENDPOINTS)) == 14)  # type: ignore[union-attr]
            assert asyncio.get_running_loop().time() - began > 0.4  # ten more than the burst, twenty a second


def test_labels_that_kubernetes_would_refuse_stay_out_of_the_objects_own() -> None:
    labels = ("k8s:app=a b", "k8s:ok=yes", "k8s:io.cilium.k8s.namespace.labels.x=y", "reserved:world")
    body = identity_body(300, labels)
    assert body["metadata"]["labels"] == {"ok": "yes"}
    assert body["security-labels"] == {
        "k8s:app": "a b",
        "k8s:ok": "yes",
        "k8s:io.cilium.k8s.namespace.labels.x": "y",
        "reserved:world": "",
    }
    assert Wanted({}, {}).over == frozenset()
