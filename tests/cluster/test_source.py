"""Everything a node needs from an API server, in batches: what the policy loop gets, and when."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cluster.queries import Following, IdentitySource
from agent.cluster.resources import (
    CILIUM_ENDPOINT_SLICES,
    CILIUM_ENDPOINTS,
    CILIUM_IDENTITIES,
    CILIUM_POLICIES,
    NODES,
    PODS,
    SECRETS,
    Resource,
)
from agent.cluster.sliced import Sliced
from agent.cluster.source import ClusterSource
from agent.node.policy_loop import PolicyLoop
from agent.node.ports import ProxyPorts
from agent.node.regenerate import Books, Regenerator
from policies.compiling.agreement import Agreement
from policies.compiling.compiler import Compiled, Compiler, CompilerOptions
from policies.compiling.identity import IdentityAllocator
from policies.compiling.slots import SlotBook
from policies.inventory import Inventory
from policies.objects import PodKey
from policies.world import World
from tests.cluster.stage import IS_REAL, Cluster, a_cluster, until
from tests.fakes.apiserver import Refusal
from tests.fakes.effects import Effects, FakeKernel, FakeProxies

HERE, THERE = "here", "there"
pytestmark = pytest.mark.skipif(IS_REAL, reason="writes the status of pods and nodes, as only kubelets do")
NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace"


@dataclass
class Node:
    """A node that follows a server: the real source, store, compiler and loop; only effects are remembered."""

    cluster: Cluster
    identities: IdentitySource = IdentitySource.ENDPOINTS
    effects: Effects = field(default_factory=Effects)
    compiled: int = 0

    def __post_init__(self) -> None:
        self.source = ClusterSource(self.cluster.api, Following(HERE, self.identities))
        self.compiler = Compiler(IdentityAllocator(agreement=Agreement()), CompilerOptions(node_name=HERE))
        regenerator = Regenerator(
            FakeProxies(self.effects),
            FakeKernel(self.effects),
            Books(SlotBook(), ProxyPorts(14000, 14099)),
            save=lambda books: None,
            is_free=lambda protocol, port: True,
            now=lambda: 0.0,
            ack_timeout=5.0,
        )
        self.loop = PolicyLoop(regenerator, self.compile, lambda world, node: None, store=Inventory())

    def compile(self, world: World, revision: int) -> Compiled:
        self.compiled += 1
        mine = sorted(key for key, pod in world.pods.items() if pod.node_name == HERE)
        return self.compiler.compile(world, {key: number for number, key in enumerate(mine, 10)}, (), revision)

    @property
    def world(self) -> World:
        return self.loop.repository.world()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        async with asyncio.TaskGroup() as tasks:
            work = (self.source.run(), self.loop.watch(self.source.batches()), self.loop.run())
            started = [tasks.create_task(one) for one in work]
            try:
                yield self
            finally:
                for task in started:
                    task.cancel()


def pod(name: str, node: str, address: str, **labels: str) -> dict[str, Any]:
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    containers = [{"name": "c", "image": "none", "ports": [{"name": "http", "containerPort": 80}]}]
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": containers},
        "status": status,
    }


def endpoint(name: str, namespace: str, address: str, node: str, **labels: str) -> dict[str, Any]:
    written = [f"k8s:{key}={value}" for key, value in labels.items()]
    status = {
        "identity": {"id": 4000, "labels": [*written, f"{NAMESPACE_LABEL}={namespace}"]},
        "networking": {"addressing": [{"ipv4": address}], "node": node},
        "named-ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    return {"metadata": {"name": name}, "status": status}


def node_object(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}


def policy(name: str, port: str = "80", **http: Any) -> dict[str, Any]:
    ports: dict[str, Any] = {"ports": [{"port": port, "protocol": "TCP"}]}
    if http:
        ports["rules"] = {"http": [http]}
    clause = {"fromEndpoints": [{}], "toPorts": [ports]}
    return {
        "metadata": {"name": name},
        "spec": {"endpointSelector": {"matchLabels": {"app": "a"}}, "ingress": [clause]},
    }


async def put(cluster: Cluster, resource: Resource, body: dict[str, Any]) -> None:
    """With its status, whoever may write that."""
    assert cluster.fake is not None
    body["metadata"].setdefault("namespace", cluster.namespace)
    cluster.fake.put(resource, body)


async def test_nothing_is_computed_before_everything_is_listed() -> None:
    async with a_cluster() as cluster:
        assert cluster.fake is not None
        await put(cluster, PODS, pod("a", HERE, "10.0.0.1", app="a"))
        await put(cluster, CILIUM_POLICIES, policy("p"))
        cluster.fake.faults.refuse["list"] = Refusal(503, "ServiceUnavailable", "starting")
        async with Node(cluster).running() as node:
            await until(lambda: node.loop.problems)
            assert node.compiled == 0
            assert len(node.loop.problems) == 1  # one line for all kinds
            assert "API server" in node.loop.problems[0]
            assert "starting" in node.loop.problems[0]
            cluster.fake.faults.refuse.clear()
            await until(lambda: node.loop.enforced.complete)
            assert not node.loop.problems
            assert node.compiled == 1
            assert node.loop.enforced.node.policies[0].ingress.enforced


async def test_an_edit_is_enforced_within_a_second_and_a_deletion_too() -> None:
    async with a_cluster() as cluster, Node(cluster).running() as node:
        await put(cluster, PODS, pod("a", HERE, "10.0.0.1", app="a"))
        await until(lambda: node.loop.enforced.node.endpoints)
        assert not node.loop.enforced.node.policies[0].ingress.enforced
        for act, holds in (
            (put(cluster, CILIUM_POLICIES, policy("p", "81")), lambda: opens(node) == {81}),
            (put(cluster, CILIUM_POLICIES, policy("p", "82")), lambda: opens(node) == {82}),
            (cluster.api.delete(CILIUM_POLICIES, cluster.namespace, "p"), lambda: opens(node) is None),
        ):
            began = time.monotonic()
            await act
            await until(holds, 1.0)
            assert time.monotonic() - began < 1.0


def opens(node: Node) -> set[int] | None:
    """The ports that the only pod's policy opens; None if it is open."""
    [group] = node.loop.enforced.node.policies
    ports = {port.ports.first for port in group.ingress.ports if port.ports.first}
    return ports if group.ingress.enforced else None


async def test_a_bad_policy_keeps_its_last_good_version_and_says_where() -> None:
    async with a_cluster() as cluster, Node(cluster).running() as node:
        await put(cluster, PODS, pod("a", HERE, "10.0.0.1", app="a"))
        await put(cluster, CILIUM_POLICIES, policy("p", "81"))
        await until(lambda: node.loop.enforced.node.endpoints and opens(node) == {81})
        await put(cluster, CILIUM_POLICIES, policy("p", "nonsense!"))
        await until(lambda: node.loop.problems)
        assert "CiliumNetworkPolicy" in node.loop.problems[0]
        assert "spec.ingress[0].toPorts[0].ports[0].port" in node.loop.problems[0]
        assert opens(node) == {81}
        [(name, version)] = node.loop.repository.versions.items()
        assert (name, version.partition("/")[0]) == (f"CiliumNetworkPolicy {cluster.namespace}/p", "2")
        await until(lambda: node.loop.enforced.files == node.loop.repository.versions)
        await put(cluster, CILIUM_POLICIES, policy("p", "82"))
        await until(lambda: not node.loop.problems and opens(node) == {82})


async def test_other_nodes_pods_are_who_their_node_says_and_own_ones_are_known_themselves() -> None:
    async with a_cluster() as cluster:
        await put(cluster, NODES, node_object(HERE, "192.0.2.1"))
        await put(cluster, PODS, pod("mine", HERE, "10.0.0.1", app="a"))
        await put(cluster, PODS, pod("other", THERE, "10.0.1.1", app="b"))
        await put(cluster, CILIUM_ENDPOINTS, endpoint("mine", cluster.namespace, "10.0.0.9", "192.0.2.1", app="old"))
        await put(cluster, CILIUM_ENDPOINTS, endpoint("gone", cluster.namespace, "10.0.0.8", "192.0.2.1", app="old"))
        await put(cluster, CILIUM_ENDPOINTS, endpoint("other", cluster.namespace, "10.0.1.1", "192.0.2.2", app="b"))
        async with Node(cluster).running() as node:
            await until(lambda: node.loop.enforced.complete)
            assert sorted(key.name for key in node.world.pods) == ["mine", "other"]
            other = node.world.pods[PodKey(cluster.namespace, "other")]
            assert other.addresses == ("10.0.1.1",)
            assert other.published is not None
            assert "k8s:app=b" in other.published.labels
            assert dict(other.ports)  # named ports, for egress rules that name one
            await cluster.api.delete(CILIUM_ENDPOINTS, cluster.namespace, "other")
            await until(lambda: len(node.world.pods) == 1)


async def test_of_pods_alone_everybody_is_known_too() -> None:
    async with a_cluster() as cluster:
        await put(cluster, PODS, pod("mine", HERE, "10.0.0.1", app="a"))
        await put(cluster, PODS, pod("other", THERE, "10.0.1.1", app="b"))
        async with Node(cluster, IdentitySource.PODS).running() as node:
            await until(lambda: node.loop.enforced.complete)
            assert len(node.world.pods) == 2
            assert ("list", "ciliumendpoints") not in cluster.fake.requests  # type: ignore[union-attr]


async def test_endpoints_in_slices_are_known_by_the_number_that_was_agreed_on() -> None:
    async with a_cluster() as cluster:
        assert cluster.fake is not None
        labels = {"k8s:app": "b", NAMESPACE_LABEL: cluster.namespace}
        await put(cluster, CILIUM_IDENTITIES, {"metadata": {"name": "4321"}, "security-labels": labels})
        core = {"name": "other", "id": 4321, "networking": {"addressing": [{"ipv4": "10.0.1.1"}], "node": "192.0.2.2"}}
        body = {"metadata": {"name": "ces-1"}, "namespace": cluster.namespace, "endpoints": [core]}
        await put(cluster, CILIUM_ENDPOINT_SLICES, body)
        async with Node(cluster, IdentitySource.SLICES).running() as node:
            await until(lambda: node.loop.enforced.complete)
            found = {address.prefix: address.identity for address in node.loop.enforced.node.addresses}
            assert found["10.0.1.1/32"] == 4321
            cluster.fake.remove(CILIUM_ENDPOINT_SLICES, "ces-1")
            await until(lambda: not node.world.pods)


async def test_only_secrets_that_policies_name_are_read() -> None:
    async with a_cluster() as cluster:
        assert cluster.fake is not None
        token = {"mismatch": "ADD", "name": "X-Token", "secret": {"name": "token"}}
        for name in ("token", "other"):
            value = base64.b64encode(b"abc").decode()
            await put(cluster, SECRETS, {"metadata": {"name": name}, "data": {"value": value}})
        async with Node(cluster).running() as node:
            await until(lambda: node.loop.enforced.complete)
            assert not node.world.secrets
            await put(cluster, CILIUM_POLICIES, policy("p", "80", headerMatches=[token]))
            await until(lambda: node.world.secrets)
            assert [key.name for key in node.world.secrets] == ["token"]
            assert node.world.secrets[PodKey(cluster.namespace, "token")].values == {"value": "abc"}
            await cluster.api.delete(CILIUM_POLICIES, cluster.namespace, "p")
            await until(lambda: not node.world.secrets)


async def test_a_secret_that_may_not_be_read_holds_up_nothing_else() -> None:
    async with a_cluster() as cluster:
        assert cluster.fake is not None
        cluster.fake.faults.absent.add("secrets")
        token = {"name": "X-Token", "secret": {"name": "token"}}
        await put(cluster, CILIUM_POLICIES, policy("p", "80", headerMatches=[token]))
        async with Node(cluster).running() as node:
            await until(lambda: node.loop.enforced.complete)
            assert any("secrets" in problem for problem in node.loop.problems)


async def test_a_burst_is_one_compilation() -> None:
    async with a_cluster() as cluster, Node(cluster).running() as node:
        await until(lambda: node.loop.enforced.complete)
        before = node.compiled
        for number in range(300):
            await put(cluster, PODS, pod(f"p{number}", HERE, f"10.0.{number // 250}.{number % 250 + 1}", app="a"))
        await until(lambda: len(node.loop.enforced.node.endpoints) == 300)
        assert node.compiled - before < 10


@given(
    st.lists(
        st.tuples(st.sampled_from("xyz"), st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3)) | st.none()),
        max_size=20,
    )
)
def test_an_endpoint_is_known_as_long_as_some_slice_has_it(story: list[tuple[str, dict[str, int] | None]]) -> None:
    sliced, slices, known = Sliced(), dict[str, dict[str, int]](), dict[str, int]()
    for name, content in story:
        if content is None:
            if slices.pop(name, None) is None:
                continue
            changes = sliced.remove(name)
        else:
            slices[name] = content
            entries = [{"name": pod_name, "id": number} for pod_name, number in content.items()]
            changes = sliced.update(name, {"namespace": "n", "endpoints": entries})
        for key, raw in changes:
            if raw is None:
                del known[key.name]
            else:
                known[key.name] = raw["status"]["identity"]["id"]
        assert known.keys() == {pod_name for content in slices.values() for pod_name in content}
        for pod_name, number in known.items():
            assert number in {content[pod_name] for content in slices.values() if pod_name in content}
