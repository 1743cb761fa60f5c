"""Who the nodes are, with and without labels to choose them by."""

from __future__ import annotations

import pytest

from policies.compiling.identity import IdentityAllocator
from policies.compiling.nodes import Nodes
from policies.compiling.selections import SelectorCache
from policies.objects import Node
from policies.types import IDENTITY_HOST, IDENTITY_KUBE_APISERVER, IDENTITY_REMOTE_NODE

HERE = Node("here", {"zone": "inner"}, ("172.18.0.2",))
THERE = Node("there", {"zone": "outer"}, ("172.18.0.3", "fd00::3"))
MASTER = Node("master", {"zone": "outer"}, ("172.18.0.4",))
NODES = {node.name: node for node in (HERE, THERE, MASTER)}
SERVERS = frozenset(["172.18.0.4"])


def nodes(*, with_labels: bool) -> Nodes:
    found = Nodes(IdentityAllocator(), SelectorCache(), own_name="here", with_labels=with_labels)
    found.take(NODES, SERVERS, ["192.0.2.1"])
    return found


def test_nodes_are_the_host_the_remote_ones_and_those_of_the_api_server() -> None:
    assert nodes(with_labels=False).identities == {
        "192.0.2.1": IDENTITY_HOST,
        "172.18.0.2": IDENTITY_HOST,
        "172.18.0.3": IDENTITY_REMOTE_NODE,
        "fd00::3": IDENTITY_REMOTE_NODE,
        "172.18.0.4": IDENTITY_KUBE_APISERVER,
    }


def test_with_labels_each_other_node_is_somebody_and_this_one_is_still_the_host() -> None:
    found = nodes(with_labels=True).identities
    assert {found["192.0.2.1"], found["172.18.0.2"]} == {IDENTITY_HOST}
    assert found["172.18.0.3"] == found["fd00::3"]
    assert len({found["172.18.0.3"], found["172.18.0.4"], IDENTITY_HOST, IDENTITY_REMOTE_NODE}) == 4


@pytest.mark.parametrize("with_labels", [False, True])
def test_a_node_that_goes_is_no_node(with_labels: bool) -> None:
    found = nodes(with_labels=with_labels)
    found.take({"here": HERE}, frozenset(), ["192.0.2.1"])
    assert found.identities == {"192.0.2.1": IDENTITY_HOST, "172.18.0.2": IDENTITY_HOST}
