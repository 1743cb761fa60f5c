"""Identities and endpoints that nobody uses: what goes, when, and what never does."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.cluster.errors import ApiError
from agent.cluster.node_report import report, to_body
from agent.cluster.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES, DEFLECTOR_NODES, NODES, PODS, Resource
from agent.operator.collector import GarbageTimes
from agent.operator.garbage import MARK, EndpointGarbage, IdentityGarbage, Labelled, Step, Use
from policies.objects import PodKey
from tests.cluster.stage import until
from tests.operator.town import Town, eventually

EMPIRE, ALLIANCE = ("k8s:org=empire",), ("k8s:org=alliance",)


def identity(number: int, labels: tuple[str, ...] = EMPIRE, created: str = "1", is_marked: bool = False) -> Labelled:
    return Labelled(str(number), created, f"uid-{number}", "1", labels, is_marked)


def keyed(*found: Labelled) -> dict[PodKey, Labelled]:
    return {PodKey("", i.number): i for i in found}


def use(number: int, labels: tuple[str, ...] = EMPIRE) -> dict[PodKey, Use]:
    return {PodKey("default", f"pod-{number}"): Use("uid", str(number), labels)}


def test_an_unused_identity_is_marked_after_half_of_its_time_and_goes_after_the_other_half() -> None:
    garbage, fresh, marked = IdentityGarbage(10.0), keyed(identity(300)), keyed(identity(300, is_marked=True))
    assert not list(garbage.sweep(fresh, {}, 0.0))
    assert not list(garbage.sweep(fresh, {}, 4.9))
    assert [step for _, step in garbage.sweep(fresh, {}, 5.0)] == [Step.MARK]
    assert not list(garbage.sweep(marked, {}, 5.1))
    assert not list(garbage.sweep(marked, {}, 10.0))
    assert [step for _, step in garbage.sweep(marked, {}, 10.2)] == [Step.DELETE]


def test_whoever_takes_it_meanwhile_takes_the_mark_away() -> None:
    garbage, marked = IdentityGarbage(10.0), keyed(identity(300, is_marked=True))
    list(garbage.sweep(marked, {}, 0.0))
    assert [step for _, step in garbage.sweep(marked, use(300), 9.0)] == [Step.UNMARK]
    assert not list(garbage.sweep(keyed(identity(300)), {}, 12.0))  # its time begins anew


def test_labels_of_an_endpoint_whose_number_is_yet_to_come_are_a_use() -> None:
    garbage = IdentityGarbage(0.0)
    assert not list(garbage.sweep(keyed(identity(300)), use(0), 1.0))
    assert [i.number for i, _ in garbage.sweep(keyed(identity(300, ALLIANCE)), use(0), 1.0)] == ["300"]


def test_of_two_numbers_for_the_same_labels_the_one_that_does_not_count_goes() -> None:
    garbage = IdentityGarbage(0.0)
    both = keyed(identity(300, created="2"), identity(400, created="1"))
    assert [i.number for i, _ in garbage.sweep(both, use(0), 1.0)] == ["300"]
    assert not [i for i, _ in garbage.sweep(both, {**use(300), **use(400)}, 1.0)]


@given(st.lists(st.tuples(st.sampled_from(["use", "leave", "mark", "look"]), st.floats(0, 10)), max_size=40))
def test_nothing_goes_that_was_used_within_the_grace_time(events: list[tuple[str, float]]) -> None:
    garbage, now, last_used, is_marked, in_use = IdentityGarbage(10.0), 0.0, 0.0, False, True
    for event, wait in events:
        now += wait
        if in_use:
            last_used = now
        in_use = event == "use" or (in_use and event != "leave")
        is_marked = is_marked or event == "mark"
        for _, step in garbage.sweep(keyed(identity(300, is_marked=is_marked)), use(300) if in_use else {}, now):
            assert step is not Step.DELETE or (now - last_used >= 5.0 and not in_use and is_marked)
            is_marked = {Step.MARK: True, Step.UNMARK: False}.get(step, is_marked)


def test_an_endpoint_goes_when_its_pod_has_been_missing_for_a_while() -> None:
    garbage, pod = EndpointGarbage(5.0), PodKey("default", "pod-300")
    assert not list(garbage.sweep(use(300), set(), 0.0))
    assert not list(garbage.sweep(use(300), {pod}, 4.0))
    assert not list(garbage.sweep(use(300), set(), 6.0))
    assert [key for key, _ in garbage.sweep(use(300), set(), 11.0)] == [pod]


# Against a server


async def is_there(town: Town, resource: Resource, name: str) -> bool:
    try:
        await town.api.get(resource, town.namespace, name)
    except ApiError as error:
        if not error.is_missing:
            raise
        return False
    return True


def endpoint(name: str, number: int) -> dict[str, Any]:
    labels = ["k8s:org=empire"]
    status = {"identity": {"id": number, "labels": labels}, "networking": {"addressing": [{"ipv4": "10.0.0.1"}]}}
    return {"metadata": {"name": name}, "status": status}


async def test_what_nobody_uses_is_taken_away_and_the_rest_is_not(town: Town) -> None:
    first = 200_000 + int(town.namespace[-6:], 16) % 50_000 * 2
    used, unused = str(first), str(first + 1)
    labels = {used: {"k8s:org": "empire"}, unused: {"k8s:org": town.namespace}}
    async with town.operator(garbage=GarbageTimes(0.2, 1.0, 0.4)):
        await eventually(lambda: _can_list(town))
        pod = {"metadata": {"name": "tie"}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
        await town.api.create(PODS, town.namespace, pod)
        await town.api.create(CILIUM_ENDPOINTS, town.namespace, endpoint("tie", first))
        for number, security in labels.items():
            await town.api.create(CILIUM_IDENTITIES, "", {"metadata": {"name": number}, "security-labels": security})
        try:
            await eventually(lambda: _is_marked(town, unused), 5)
            assert await is_there(town, CILIUM_IDENTITIES, unused)
            await eventually(lambda: _is_gone(town, CILIUM_IDENTITIES, unused), 5)
            assert await is_there(town, CILIUM_IDENTITIES, used)
            assert not await _is_marked(town, used)
            await town.api.create(CILIUM_ENDPOINTS, town.namespace, endpoint("wing", first))
            await eventually(lambda: _is_gone(town, CILIUM_ENDPOINTS, "wing"), 5)
            assert await is_there(town, CILIUM_ENDPOINTS, "tie")
        finally:
            await town.api.delete(PODS, town.namespace, "tie")
            await town.api.delete(CILIUM_ENDPOINTS, town.namespace, "tie")
            await town.api.delete(CILIUM_IDENTITIES, "", used)


async def test_the_report_of_a_node_that_is_gone_goes_too(town: Town) -> None:
    async with town.operator() as leia, town.some_nodes("one", "two") as (one, two):
        await eventually(lambda: _report_is_there(town, one.name))
        await eventually(lambda: _report_is_there(town, two.name))
        await town.api.delete(NODES, "", one.name)
        await eventually(lambda: _is_gone(town, DEFLECTOR_NODES, one.name))
        assert await is_there(town, DEFLECTOR_NODES, two.name)
        assert leia.reign is not None
        assert one.name not in leia.reign.rollout.fleet.members()


async def test_who_is_no_node_does_not_count(town: Town) -> None:
    gone = f"{town.prefix}gone"
    async with town.some_nodes("one") as (one,):
        async with town.operator():
            await eventually(lambda: _report_is_there(town, one.name))
        said = to_body(report(gone, {}, faults=(), problems=()), "2026-01-01T00:00:00Z")
        await town.api.create(DEFLECTOR_NODES, "", said)
        try:
            async with town.operator("han", garbage=GarbageTimes(60, 60, 60)) as han:
                await until(lambda: han.reign and han.reign.is_complete)
                assert han.reign is not None
                members = han.reign.rollout.fleet.members()
                assert one.name in members
                assert gone not in members
                await town.api.create(NODES, "", {"metadata": {"name": gone}})
                await until(lambda: gone in members)
        finally:
            await town.api.delete(NODES, "", gone)
            await town.api.delete(DEFLECTOR_NODES, "", gone)


async def _can_list(town: Town) -> bool:
    try:
        await town.api.list_page(CILIUM_ENDPOINTS, {})
        await town.api.list_page(CILIUM_IDENTITIES, {})
    except ApiError:
        return False
    return True


async def _is_marked(town: Town, number: str) -> bool:
    try:
        found = await town.api.get(CILIUM_IDENTITIES, "", number)
    except ApiError:
        return False
    return MARK in (found["metadata"].get("annotations") or {})


async def _is_gone(town: Town, resource: Resource, name: str) -> bool:
    return not await is_there(town, resource, name)


async def _report_is_there(town: Town, name: str) -> bool:
    return await is_there(town, DEFLECTOR_NODES, name)
