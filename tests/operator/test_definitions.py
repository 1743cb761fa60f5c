"""Definitions are installed where there are none, and nothing of anybody else's is touched; where Cilium runs, nothing
is done at all."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agent.cluster.errors import ApiError
from agent.cluster.resources import CILIUM_NODES, CRDS, DAEMON_SETS
from agent.crds import DIGEST, OWNER, manifests
from agent.errors import EnvironmentProblem
from agent.operator.definitions import install, lacks
from agent.operator.pen import Pen
from tests.cluster.stage import until
from tests.operator.town import Town

NAMES = [made["metadata"]["name"] for made in manifests()]


def manifest(name: str) -> dict[str, Any]:
    return copy.deepcopy(next(made for made in manifests() if made["metadata"]["name"] == name))


def only_fake(town: Town) -> None:
    if town.cluster.fake is None:
        pytest.skip("definitions of a real server are everybody's")


async def test_what_is_absent_is_installed_and_served(town: Town) -> None:
    await install(Pen(town.api, lambda: True))
    for name in NAMES:
        found = await town.api.get(CRDS, "", name)
        assert any(c["type"] == "Established" and c["status"] == "True" for c in found["status"]["conditions"])


async def test_somebody_elses_definition_stays_as_it_is(town: Town) -> None:
    only_fake(town)
    theirs = manifest("ciliumnetworkpolicies.cilium.io")
    theirs["metadata"] = {"name": theirs["metadata"]["name"], "labels": {"io.cilium.k8s.crd.schema.version": "1.32"}}
    theirs["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": {"type": "object"}}
    before = await town.api.create(CRDS, "", theirs)
    await install(Pen(town.api, lambda: True))
    assert await town.api.get(CRDS, "", theirs["metadata"]["name"]) == before


async def test_our_own_is_brought_up_to_date(town: Town) -> None:
    only_fake(town)
    ours = manifest("ciliumidentities.cilium.io")
    ours["metadata"]["annotations"][DIGEST] = "older"
    await town.api.create(CRDS, "", ours)
    await install(Pen(town.api, lambda: True))
    found = await town.api.get(CRDS, "", ours["metadata"]["name"])
    assert (
        found["metadata"]["annotations"][DIGEST]
        == manifest(ours["metadata"]["name"])["metadata"]["annotations"][DIGEST]
    )
    assert found["metadata"]["labels"][OWNER] == "deflector"
    version = found["metadata"]["resourceVersion"]
    await install(Pen(town.api, lambda: True))
    assert (await town.api.get(CRDS, "", ours["metadata"]["name"]))["metadata"]["resourceVersion"] == version


def test_what_a_foreign_definition_lacks_is_said() -> None:
    wanted = manifest("ciliumnetworkpolicies.cilium.io")
    without_status = copy.deepcopy(wanted)
    del without_status["spec"]["versions"][0]["subresources"]
    assert "status" in lacks(without_status, wanted)
    other_version = copy.deepcopy(wanted)
    other_version["spec"]["versions"][0]["name"] = "v3"
    assert "v2" in lacks(other_version, wanted)
    assert not lacks(wanted, wanted)


def daemon_set(name: str, labels: dict[str, str], namespace: str) -> dict[str, Any]:
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": pods},
    }


async def test_where_cilium_runs_nothing_is_done_and_one_line_says_why(town: Town) -> None:
    made = daemon_set("anything", {"k8s-app": "cilium"}, town.namespace)
    await town.api.create(DAEMON_SETS, town.namespace, made)
    try:
        with pytest.raises(ExceptionGroup) as caught:
            async with town.operator() as leia:
                await until(lambda: False, 10) if leia is None else await leia._tasks.failed()
        assert caught.group_contains(EnvironmentProblem, match=f"DaemonSet {town.namespace}/anything")
        async with town.operator(beside_cilium=True) as leia:
            await until(lambda: leia.reign and leia.reign.is_complete)
    finally:
        await town.api.delete(DAEMON_SETS, town.namespace, "anything")


async def test_a_node_object_that_cilium_has_just_written_is_a_sign_of_it(town: Town) -> None:
    only_fake(town)
    assert town.cluster.fake is not None
    town.cluster.fake.put(CILIUM_NODES, {"metadata": {"name": "hoth"}})
    with pytest.raises(ExceptionGroup) as caught:
        async with town.operator() as leia:
            await leia._tasks.failed()
    assert caught.group_contains(EnvironmentProblem, match="CiliumNode hoth")
    with pytest.raises(ApiError):
        await town.api.get(CRDS, "", NAMES[0])  # nothing was installed
