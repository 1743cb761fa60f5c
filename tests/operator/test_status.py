"""Conditions and events of policies, as people see them, while nodes come to enforce them or do not."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from agent.cluster.errors import ApiError
from agent.cluster.node_report import Fault
from agent.cluster.resources import CILIUM_CLUSTER_POLICIES, CILIUM_POLICIES, NETWORK_POLICIES
from agent.operator import conditions
from agent.operator.pen import Pen
from tests.cluster.stage import until
from tests.operator.town import Raw, Town, eventually, policy


def is_true(condition: Raw) -> bool:
    return bool(condition["status"] == "True")


async def test_a_policy_is_valid_at_once_and_enforced_when_every_node_has_it(town: Town) -> None:
    async with town.operator() as leia, town.some_nodes("one", "two") as (one, two):
        await until(lambda: leia.reign and leia.reign.is_complete and len(leia.reign.rollout.fleet) >= 2)
        made = await town.apply(policy("rule1"))
        one.realise(made)
        valid = await town.until("rule1", "Valid", is_true, 1.5)
        assert (valid["reason"], valid["observedGeneration"]) == ("Accepted", made["metadata"]["generation"])
        two.realise(made)
        enforced = await town.until("rule1", "Enforced", is_true)
        assert enforced["message"].startswith("2 of 2 nodes, at worst after ")
        assert enforced["message"].endswith(f"({two.name})") or enforced["message"].endswith(f"({one.name})")


async def test_an_edit_is_told_within_a_second_and_a_deletion_needs_no_word(town: Town) -> None:
    async with town.operator() as leia, town.some_nodes("one") as (one,):
        await until(lambda: leia.reign and one.name in leia.reign.rollout.fleet.members())
        made = await town.apply(policy("rule1"))
        one.realise(made)
        first = await town.until("rule1", "Enforced", is_true)
        edited = await town.apply(policy("rule1", "/v1/exhaust-port"))
        began = time.monotonic()
        one.realise(edited)
        told = await town.until(
            "rule1", "Enforced", lambda c: is_true(c) and c["observedGeneration"] == edited["metadata"]["generation"]
        )
        assert time.monotonic() - began < 1.0
        assert told["lastTransitionTime"] == first["lastTransitionTime"]  # it was True before
        await town.api.delete(CILIUM_POLICIES, town.namespace, "rule1")
        await until(lambda: leia.reign and not [n for n in leia.reign.rollout if town.namespace in n])


async def test_a_bad_policy_says_what_is_wrong_where_and_is_an_event_once(town: Town) -> None:
    async with town.operator():
        made = await town.apply(policy("rule1", "["))
        valid = await town.until("rule1", "Valid", lambda c: c["status"] == "False", 3.0)
        assert valid["reason"] == "BadRegex"
        assert valid["message"].startswith("spec.ingress[0].toPorts[0].rules.http[0].path: bad regular expression")
        refused = await town.condition("rule1", "Enforced")
        assert (refused["status"], refused["reason"]) == ("False", "Refused")
        [event] = await eventually(lambda: town.events("rule1"))
        assert (event["reason"], event["type"], event["regarding"]["uid"]) == (
            "Refused",
            "Warning",
            made["metadata"]["uid"],
        )
        assert event["note"] == valid["message"]
        await town.api.patch(CILIUM_POLICIES, town.namespace, "rule1", {"metadata": {"labels": {"a": "b"}}})
    async with town.operator("han") as han:  # the next leader has nothing new to tell
        await until(lambda: han.reign and han.reign.is_complete)
        await town.apply(policy("rule2", "["))
        await eventually(lambda: town.events("rule2"))
        assert len(await town.events("rule1")) == 1


async def test_warnings_are_in_the_condition(town: Town) -> None:
    async with town.operator():
        await town.apply(policy("rule1", ingress=[{"toPorts": [{"ports": [{"port": "80"}]}]}]))
        valid = await town.until("rule1", "Valid", is_true, 3.0)
        assert valid["reason"] == "Warnings"
        assert "selects everything" in valid["message"]


async def test_a_node_that_cannot_is_named_with_its_reason_and_named_no_more_when_it_can(town: Town) -> None:
    async with town.some_nodes("one", "two") as (one, two), town.operator() as leia:
        await until(lambda: leia.reign and len(leia.reign.rollout.fleet) >= 2)
        made = await town.apply(policy("rule1"))
        name = f"CiliumNetworkPolicy {town.namespace}/rule1"
        one.realise(made)
        two.realise(made, faults=[Fault(name, "slot ingress:80: refused: bad regex")])
        told = await town.until("rule1", "Enforced", lambda c: c["reason"] == "Degraded")
        assert told["status"] == "False"
        assert told["message"] == f"1 of 2 nodes; {two.name}: slot ingress:80: refused: bad regex"
        [event] = await eventually(lambda: town.events("rule1"))
        assert event["reason"] == "Degraded"
        two.realise(made)
        await town.until("rule1", "Enforced", is_true)
        await eventually(lambda: _reasons(town, "rule1", 2))
        assert {e["reason"] for e in await town.events("rule1")} == {"Degraded", "Enforced"}


async def _reasons(town: Town, name: str, count: int) -> bool:
    return len(await town.events(name)) >= count


async def test_a_node_that_does_not_get_there_is_late(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "LATE_SECONDS", 0.8)
    monkeypatch.setattr("agent.operator.rollout.LATE_SECONDS", 0.8)
    async with town.operator() as leia, town.some_nodes("one", "two") as (one, two):
        await until(lambda: leia.reign and len(leia.reign.rollout.fleet) >= 2)
        first = await town.apply(policy("rule1"))
        one.realise(first)
        two.realise(first)
        await town.until("rule1", "Enforced", is_true)
        second = await town.apply(policy("rule1", "/v1/exhaust-port"))
        one.realise(second)
        under_way = await town.until("rule1", "Enforced", lambda c: c["observedGeneration"] == 2)
        assert (under_way["status"], under_way["message"]) == ("Unknown", "1 of 2 nodes")
        late = await town.until("rule1", "Enforced", lambda c: c["reason"] == "Late")
        assert late["message"] == f"1 of 2 nodes; not yet: {two.name}"
        two.realise(second)
        await town.until("rule1", "Enforced", is_true)
        assert leia.reign is not None
        assert leia.reign.scribe.waiting == 0


async def test_another_policy_of_the_same_name_is_another_policy(town: Town) -> None:
    async with town.operator(), town.some_nodes("one") as (one,):
        made = await town.apply(policy("rule1"))
        one.realise(made)
        await town.until("rule1", "Enforced", is_true)
        await town.api.delete(CILIUM_POLICIES, town.namespace, "rule1")
        again = await town.apply(policy("rule1", "/v1/exhaust-port"))
        assert again["metadata"]["generation"] == 1
        told = await town.until("rule1", "Enforced", lambda c: True)
        assert told["status"] == "Unknown"
        one.realise(again)
        await town.until("rule1", "Enforced", is_true)


async def test_nobody_reports_and_people_are_told_so(town: Town) -> None:
    async with town.operator():
        await town.apply(policy("rule1"))
        told = await town.until("rule1", "Enforced", lambda c: c["reason"] == "NoNodes")
        assert "deflector agent" in told["message"]


async def test_a_clusterwide_policy_has_conditions_and_a_network_policy_has_events(town: Town) -> None:
    name = f"ccnp-{town.namespace}"
    async with town.operator():
        await town.apply({**policy(name)}, CILIUM_CLUSTER_POLICIES)
        try:
            await town.until(name, "Valid", is_true, resource=CILIUM_CLUSTER_POLICIES)
        finally:
            await town.api.delete(CILIUM_CLUSTER_POLICIES, "", name)
        bad = {
            "podSelector": {},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}],
        }
        if town.cluster.fake is not None:  # a real server refuses it itself
            town.cluster.fake.put(
                NETWORK_POLICIES,
                {"metadata": {"name": "np", "namespace": town.namespace}, "spec": {**bad, "policyTypes": ["Sideways"]}},
            )
            [event] = await eventually(lambda: town.events("np"))
            assert event["regarding"]["apiVersion"] == "networking.k8s.io/v1"
            assert event["reason"] == "Refused"


async def test_a_new_leader_writes_nothing_that_is_told_already(town: Town) -> None:
    async with town.some_nodes("one", "two") as (one, two):
        async with town.operator():
            made = await town.apply(policy("rule1"))
            one.realise(made)
            two.realise(made)
            before = await town.until("rule1", "Enforced", is_true)
        async with town.operator("han") as han:
            await until(lambda: han.reign and han.reign.is_complete)
            other = await town.apply(policy("rule2"))
            one.realise(other)
            two.realise(other)
            await town.until("rule2", "Enforced", is_true)
            assert await town.condition("rule1", "Enforced") == before  # with the time that only leia knew


async def test_of_a_conflict_the_newer_policy_is_told(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two writes of a status are answered as if somebody had been quicker."""
    apply, refused = Pen.apply, []

    async def refusing(self: Pen, *args: object, **more: object) -> Raw:
        if len(refused) < 2 and more.get("subresource") == "status":
            refused.append(args)
            raise ApiError(409, "Conflict", "the object has been modified")
        return await apply(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Pen, "apply", refusing)
    async with town.operator(), town.some_nodes("one") as (one,):
        made = await town.apply(policy("rule1"))
        one.realise(made)
        await town.until("rule1", "Enforced", is_true)
        assert len(refused) == 2


async def test_kubectl_shows_valid_and_enforced(town: Town) -> None:
    """The columns, as kubectl asks for them: a Table."""
    if town.cluster.fake is not None:
        pytest.skip("tables are made by real servers only")
    async with town.operator(), town.some_nodes("one") as (one,):
        made = await town.apply(policy("rule1"))
        one.realise(made)
        await town.until("rule1", "Enforced", is_true)
    words = ("-n", town.namespace, "get", "cnp", "rule1", "--no-headers", "-o", "wide")
    process = await asyncio.create_subprocess_exec("kubectl", *words, stdout=asyncio.subprocess.PIPE)
    shown = (await process.communicate())[0].decode().split()
    assert shown[0] == "rule1"
    assert shown[2:6] == ["True", "True", "1", "of"]
    raw = json.loads(await town.api.list_page(CILIUM_POLICIES, {}, town.namespace))
    assert [c["type"] for c in raw["items"][0]["status"]["conditions"]] == ["Valid", "Enforced"]
