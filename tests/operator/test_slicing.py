"""Endpoints in batches: each in exactly one slice, no slice too full, and nothing moves that need not."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.cluster.resources import CILIUM_ENDPOINT_SLICES, CILIUM_ENDPOINTS, PODS
from agent.cluster.sliced import Sliced
from agent.operator import slicing
from agent.operator.slicing import SLICE_MAX, Slicing, entry_of
from policies.objects import PodKey
from tests.cluster.stage import until
from tests.operator.town import Town, eventually

Entry = dict[str, Any]


def fresh() -> Any:
    numbers = count()
    return lambda: f"ces-{next(numbers)}"


def entry(name: str, number: int = 300) -> Entry:
    return {"name": name, "id": number, "networking": {"addressing": [{"ipv4": "10.0.0.1"}]}}


def key(number: int, namespace: str = "default") -> PodKey:
    return PodKey(namespace, f"pod-{number}")


def contents(made: Slicing) -> list[tuple[str, str]]:
    return [(found.namespace, name) for found in made.slices.values() for name in found.entries]


def test_a_hundred_to_a_slice_and_namespaces_apart() -> None:
    made = Slicing(fresh())
    for number in range(250):
        made.update(key(number), entry(f"pod-{number}"))
    made.update(key(0, "hoth"), entry("pod-0"))
    sizes = sorted((found.namespace, len(found.entries)) for found in made.slices.values())
    assert sizes == [("default", 50), ("default", 100), ("default", 100), ("hoth", 1)]
    assert made.dirty == set(made.slices)


def test_a_pod_that_comes_or_goes_changes_one_slice() -> None:
    made = Slicing(fresh())
    for number in range(150):
        made.update(key(number), entry(f"pod-{number}"))
    made.dirty.clear()
    made.update(key(3), None)
    made.update(key(200), entry("pod-200"))
    assert made.dirty == {"ces-0"} | ({"ces-1"} if len(made.slices["ces-0"].entries) == 99 else set())
    made.dirty.clear()
    made.update(key(200), entry("pod-200"))
    assert not made.dirty


def test_the_next_leader_takes_over_the_slices_that_there_are() -> None:
    first = Slicing(fresh())
    for number in range(150):
        first.update(key(number), entry(f"pod-{number}"))
    bodies = [
        {**found.body(), "metadata": {"name": found.name, "uid": "u", "resourceVersion": "5"}}
        for found in first.slices.values()
    ]
    second = Slicing(fresh())
    for body in bodies:
        second.seen(body)
    for number in range(1, 150):
        second.update(key(number), entry(f"pod-{number}"))
    assert not second.dirty
    second.keep_only({key(number): {} for number in range(1, 150)})  # pod-0 has gone while nobody led
    assert second.dirty == {"ces-0"}


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b"]), st.booleans()), max_size=80))
def test_each_endpoint_is_in_one_slice_of_its_namespace(events: list[tuple[int, str, bool]]) -> None:
    made, wanted = Slicing(fresh()), {}
    most, slicing.SLICE_MAX = SLICE_MAX, 3  # type: ignore[misc]
    try:
        for number, namespace, is_there in events:
            pod = key(number, namespace)
            if is_there:
                wanted[pod] = entry(pod.name)
            else:
                wanted.pop(pod, None)
            made.update(pod, wanted.get(pod))
            for found in made.slices.values():
                assert len(found.entries) <= 3
        assert Counter(contents(made)) == Counter(tuple(pod) for pod in wanted)
    finally:
        slicing.SLICE_MAX = most  # type: ignore[misc]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(299, 302)), max_size=60))
def test_nodes_read_out_of_slices_what_was_put_in(events: list[tuple[int, int]]) -> None:
    made, readers, wanted, read = Slicing(fresh()), Sliced(), {}, {}
    for number, identity in events:
        pod = key(number)
        if identity == 299:
            wanted.pop(pod, None)
        else:
            wanted[pod] = entry(pod.name, identity)
        made.update(pod, wanted.get(pod))
        for name in sorted(made.dirty):
            for changed, endpoint in readers.update(name, made.slices[name].body()):
                if endpoint is None:
                    read.pop(changed, None)
                else:
                    read[changed] = endpoint["status"]["identity"]["id"]
        made.dirty.clear()
    assert read == {pod: found["id"] for pod, found in wanted.items()}


def test_an_endpoint_without_identity_or_address_is_in_no_slice() -> None:
    assert entry_of(key(1), {"status": {"identity": {"id": 300}}}) is None
    assert entry_of(key(1), {"status": {"networking": {"addressing": []}}}) is None
    assert entry_of(key(1), {"status": {"identity": {"id": 300}, "networking": {"node": "x"}}}) == {
        "name": "pod-1",
        "id": 300,
        "networking": {"node": "x"},
    }


async def test_slices_at_the_server_follow_the_endpoints(town: Town) -> None:
    async def told() -> set[str]:
        page = json.loads(await town.api.list_page(CILIUM_ENDPOINT_SLICES, {}))
        return {e["name"] for item in page["items"] if item["namespace"] == town.namespace for e in item["endpoints"]}

    async def is_told(*names: str) -> bool:
        return await told() == set(names)

    async with town.operator(slices=True) as leia:
        await until(lambda: leia.reign and leia.reign.is_complete, 15)
        for name in ("tie", "wing"):
            pod = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
            await town.api.create(PODS, town.namespace, pod)
            status = {"identity": {"id": 300}, "networking": {"addressing": [{"ipv4": "10.0.0.1"}]}}
            await town.api.create(CILIUM_ENDPOINTS, town.namespace, {"metadata": {"name": name}})
            body = {"metadata": {"name": name}, "status": status}
            made = await town.api.apply(CILIUM_ENDPOINTS, town.namespace, body, manager="agent")
            if "status" not in made:
                await town.api.apply(CILIUM_ENDPOINTS, town.namespace, body, manager="agent", subresource="status")
        await eventually(lambda: is_told("tie", "wing"))
        await town.api.delete(PODS, town.namespace, "tie")
        await eventually(lambda: is_told("wing"))  # the endpoint is garbage, and its entry with it
        await town.api.delete(PODS, town.namespace, "wing")
        await eventually(lambda: is_told())
