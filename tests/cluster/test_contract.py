"""What agents rely on an API server for. Run against the fake, and with KUBECONFIG against a real one: so the fake is
held to what it stands for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent.cluster.errors import ApiError
from agent.cluster.lines import Lines
from agent.cluster.resources import (
    CILIUM_IDENTITIES,
    CILIUM_POLICIES,
    CRDS,
    PODS,
    Resource,
)
from tests.cluster.stage import Cluster

SPEC = {"endpointSelector": {}, "ingress": [{}]}


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {**SPEC, **spec}}


def pod(name: str, node: str) -> dict[str, Any]:
    containers = [{"name": "c", "image": "none"}]
    return {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": containers}}


async def page(cluster: Cluster, resource: Resource, **params: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await cluster.api.list_page(resource, params, cluster.namespace))
    return found


async def events(cluster: Cluster, resource: Resource, **params: str) -> AsyncIterator[dict[str, Any]]:
    lines = Lines()
    async with cluster.api.watch(resource, params, cluster.namespace) as pieces:
        async for piece in pieces:
            for line in lines.feed(piece):
                yield json.loads(line)


async def take(source: AsyncIterator[dict[str, Any]], count: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    async for event in source:
        if event["type"] != "BOOKMARK":
            found.append((event["type"], event["object"]["metadata"]["name"]))
        if len(found) == count:
            break
    return found


async def test_a_list_comes_in_pages_of_one_and_the_same_moment(cluster: Cluster) -> None:
    for number in range(7):
        await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy(f"p{number}"))
    first = await page(cluster, CILIUM_POLICIES, limit="3")
    await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy("p9"))
    second = await page(cluster, CILIUM_POLICIES, limit="3", **{"continue": first["metadata"]["continue"]})
    third = await page(cluster, CILIUM_POLICIES, limit="3", **{"continue": second["metadata"]["continue"]})
    names = [item["metadata"]["name"] for part in (first, second, third) for item in part["items"]]
    assert names == [f"p{number}" for number in range(7)]  # p9 came after
    assert not third["metadata"].get("continue")
    assert len({part["metadata"]["resourceVersion"] for part in (first, second, third)}) == 1


async def test_items_of_a_core_list_do_not_say_what_they_are(cluster: Cluster) -> None:
    await cluster.api.create(PODS, cluster.namespace, pod("a", "one"))
    [item] = (await page(cluster, PODS))["items"]
    assert "kind" not in item
    assert "apiVersion" not in item


async def test_a_watch_tells_what_came_after_a_version_and_again_if_asked_again(cluster: Cluster) -> None:
    start = (await page(cluster, CILIUM_POLICIES))["metadata"]["resourceVersion"]
    made = await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy("a"))
    await cluster.api.patch(CILIUM_POLICIES, cluster.namespace, "a", {"spec": {"egress": [{}]}})
    await cluster.api.delete(CILIUM_POLICIES, cluster.namespace, "a")
    told = await take(events(cluster, CILIUM_POLICIES, resourceVersion=start), 3)
    assert told == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    version = made["metadata"]["resourceVersion"]
    assert await take(events(cluster, CILIUM_POLICIES, resourceVersion=version), 2) == told[1:]


async def test_what_a_selector_no_longer_selects_is_deleted_for_its_watch(cluster: Cluster) -> None:
    start = (await page(cluster, CILIUM_POLICIES))["metadata"]["resourceVersion"]
    body = policy("a")
    body["metadata"]["labels"] = {"side": "dark"}
    await cluster.api.create(CILIUM_POLICIES, cluster.namespace, body)
    await cluster.api.patch(CILIUM_POLICIES, cluster.namespace, "a", {"metadata": {"labels": {"side": "light"}}})
    source = events(cluster, CILIUM_POLICIES, resourceVersion=start, labelSelector="side=dark")
    assert await take(source, 2) == [("ADDED", "a"), ("DELETED", "a")]


async def test_pods_of_one_node_only(cluster: Cluster) -> None:
    for name, node in (("a", "one"), ("b", "two"), ("c", "one")):
        await cluster.api.create(PODS, cluster.namespace, pod(name, node))
    found = await page(cluster, PODS, fieldSelector="spec.nodeName=one", limit="500")
    assert [item["metadata"]["name"] for item in found["items"]] == ["a", "c"]
    source = events(cluster, PODS, resourceVersion="0", fieldSelector="metadata.name=b")
    assert await take(source, 1) == [("ADDED", "b")]


async def test_a_watch_ends_when_it_was_asked_to_and_tells_the_time_in_between(cluster: Cluster) -> None:
    start = (await page(cluster, CILIUM_POLICIES))["metadata"]["resourceVersion"]
    asked = {"resourceVersion": start, "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
    told = [event async for event in events(cluster, CILIUM_POLICIES, **asked)]
    assert {event["type"] for event in told} <= {"BOOKMARK"}  # a real one tells it once a minute
    assert told or cluster.fake is None
    assert all(event["object"]["metadata"]["resourceVersion"] for event in told)
    assert all(event["object"]["kind"] == "CiliumNetworkPolicy" for event in told)


async def test_a_version_that_is_forgotten_is_gone(cluster: Cluster) -> None:
    await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy("a"))
    if cluster.fake is not None:
        cluster.fake.compact()
    [event] = [event async for event in events(cluster, CILIUM_POLICIES, resourceVersion="1")]
    error = ApiError.of_status(event["object"])
    assert (event["type"], error.status, error.is_expired) == ("ERROR", 410, True)


async def test_a_page_that_is_forgotten_is_gone(cluster: Cluster) -> None:
    if cluster.fake is None:
        pytest.skip("a real server forgets after five minutes")
    with pytest.raises(ApiError) as caught:
        await page(
            cluster,
            CILIUM_POLICIES,
            limit="2",
            **{"continue": "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0"},
        )
    assert caught.value.is_expired


async def test_of_two_that_make_the_same_object_one_is_told_so(cluster: Cluster) -> None:
    await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy("a"))
    with pytest.raises(ApiError) as caught:
        await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy("a"))
    assert caught.value.is_taken
    assert not caught.value.is_conflict


async def test_of_two_that_change_the_same_version_one_is_told_so(cluster: Cluster) -> None:
    made = await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy("a"))
    await cluster.api.update(CILIUM_POLICIES, cluster.namespace, {**made, "spec": {**SPEC, "egress": [{}]}})
    with pytest.raises(ApiError) as caught:
        await cluster.api.update(CILIUM_POLICIES, cluster.namespace, {**made, "spec": SPEC})
    assert caught.value.is_conflict
    with pytest.raises(ApiError) as caught:
        await cluster.api.delete(CILIUM_POLICIES, cluster.namespace, "a", uid="00000000-0000-0000-0000-000000000000")
    assert caught.value.is_conflict


async def test_what_is_not_there_is_missing(cluster: Cluster) -> None:
    with pytest.raises(ApiError) as caught:
        await cluster.api.get(CILIUM_POLICIES, cluster.namespace, "nobody")
    assert caught.value.is_missing
    with pytest.raises(ApiError) as caught:
        await cluster.api.list_page(Resource("cilium.io", "v9", "Nothing", "nothings"), {})
    assert caught.value.is_missing


async def test_status_and_spec_are_written_apart(cluster: Cluster) -> None:
    written = {**policy("a"), "status": {"conditions": []}}
    made = await cluster.api.create(CILIUM_POLICIES, cluster.namespace, written)
    assert "status" not in made
    status = {"conditions": [{"type": "Valid", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    told = await cluster.api.update(CILIUM_POLICIES, cluster.namespace, {**made, "status": status}, "status")
    assert told["status"]["conditions"][0]["type"] == "Valid"
    assert told["metadata"]["generation"] == made["metadata"]["generation"]
    assert told["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    moved = await cluster.api.patch(CILIUM_POLICIES, cluster.namespace, "a", {"spec": {"egress": [{}]}, "status": {}})
    assert moved["status"] == told["status"]
    assert moved["metadata"]["generation"] == made["metadata"]["generation"] + 1


async def test_a_change_that_changes_nothing_is_none(cluster: Cluster) -> None:
    made = await cluster.api.create(CILIUM_POLICIES, cluster.namespace, policy("a"))
    same = await cluster.api.patch(CILIUM_POLICIES, cluster.namespace, "a", {"spec": SPEC})
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_apply_makes_or_changes_and_takes_back_what_is_applied_no_more(cluster: Cluster) -> None:
    async def apply(spec: dict[str, Any], **labels: str) -> dict[str, Any]:
        body = {"metadata": {"name": "a", "labels": labels}, "spec": spec}
        return await cluster.api.apply(CILIUM_POLICIES, cluster.namespace, body, manager="m")

    made = await apply(SPEC, x="1", y="2")
    assert made["metadata"]["labels"] == {"x": "1", "y": "2"}
    less = await apply({**SPEC, "egress": [{}]}, x="1")
    assert less["metadata"]["labels"] == {"x": "1"}
    assert less["spec"]["egress"] == [{}]
    back = await apply(SPEC, x="1")
    assert "egress" not in back["spec"]
    again = await apply(SPEC, x="1")
    assert again["metadata"]["resourceVersion"] == back["metadata"]["resourceVersion"]


async def test_fields_that_the_schema_does_not_name_are_pruned(cluster: Cluster) -> None:
    if cluster.fake is None:
        found = await cluster.api.get(CRDS, "", f"{CILIUM_IDENTITIES.plural}.{CILIUM_IDENTITIES.group}")
        if found["spec"]["versions"][0]["schema"]["openAPIV3Schema"].get("x-kubernetes-preserve-unknown-fields"):
            pytest.skip("an operator was here first: its definitions keep what they do not name")
    name = str(40_000 + int(cluster.namespace[-4:], 16) % 20_000)
    body = {"metadata": {"name": name}, "security-labels": {"k8s:a": "b"}, "security_labels": {"k8s:a": "c"}}
    made = await cluster.api.create(CILIUM_IDENTITIES, "", body)
    try:
        assert "security_labels" not in made
        assert made["security-labels"] == {"k8s:a": "b"}
    finally:
        await cluster.api.delete(CILIUM_IDENTITIES, "", name, uid=made["metadata"]["uid"])
