"""States of nodes against states of policies: whatever nodes leave out, come late with, or are ahead of us with."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.cluster.node_report import Fault, NodeReport, from_body, report, to_body, version_of
from agent.operator.conditions import ENFORCED, VALID, enforcement, is_told, to_raw, validity
from agent.operator.fleet import SILENT_SECONDS, Fleet, Tally
from agent.operator.rollout import COUNT_SECONDS, SETTLE_SECONDS, Rollout
from agent.operator.timeline import Timeline
from policies.errors import PolicyError
from policies.objects import ObjectKey, PodKey
from tests.operator.town import policy

CNP = "CiliumNetworkPolicy"


def raw(name: str, generation: int = 1, path: str = "/a", uid: str = "") -> dict[str, Any]:
    made = policy(name, path)
    meta = {"name": name, "namespace": "default", "generation": generation, "uid": uid or f"uid-{name}"}
    return {"apiVersion": "cilium.io/v2", "kind": CNP, **made, "metadata": meta, "status": {"conditions": []}}


def key(name: str) -> str:
    return str(ObjectKey(CNP, "default", name))


class Story:
    """A rollout, and the versions that are in force on some node of the story."""

    def __init__(self, *names: str) -> None:
        self.rollout = Rollout()
        self.now = 0.0
        self.versions: dict[str, str] = {}
        for name in names:
            self.put(name)
        for kind in self.rollout.timelines:
            self.rollout.listed(kind)

    def put(self, name: str, generation: int = 1, uid: str = "") -> None:
        made = raw(name, generation, uid=uid)
        self.versions[key(name)] = version_of(made["metadata"])
        self.rollout.update(CNP, PodKey("default", name), made, self.now)

    def drop(self, name: str) -> None:
        del self.versions[key(name)]
        self.rollout.gone(CNP, PodKey("default", name), self.now)

    def hear(self, node: str, versions: dict[str, str] | None = None, **more: Any) -> set[str]:
        said = report(node, self.versions if versions is None else versions, faults=(), problems=(), **more)
        return self.rollout.report(said, self.now)

    def says(self, name: str) -> tuple[str, str]:
        found = self.rollout.wanted(key(name), self.now)[1]
        return found.status, found.message

    def writes(self, name: str) -> None:
        """Its conditions are at the server now."""
        conditions = self.rollout.raw_conditions(key(name), self.now, "2026-01-01T00:00:00Z")
        version = self.versions[key(name)]
        self.rollout.confirm(key(name), version, conditions)


def test_a_node_counts_for_what_it_has_reached() -> None:
    story = Story("a")
    story.hear("one")
    story.now, before = 10.0, dict(story.versions)
    story.put("b")
    story.hear("two", before)
    assert story.says("a")[0] == "True"
    assert story.says("b") == ("Unknown", "0 of 2 nodes")
    story.now = 10.3
    assert story.hear("one") == {key("b")}
    assert story.says("b") == ("Unknown", "1 of 2 nodes")
    story.now = 10.7
    story.hear("two")
    assert story.says("b") == ("True", "2 of 2 nodes, at worst after 0.70 s (two)")


def test_a_node_may_be_ahead_of_us() -> None:
    story = Story("a")
    story.hear("one")
    ahead = {**story.versions, key("b"): version_of(raw("b")["metadata"])}
    story.hear("one", ahead)
    assert story.says("a")[0] == "True"  # what it has reported in a state that we do not know came after one that we do
    story.put("b")
    assert story.says("b") == ("True", "1 of 1 nodes, at worst after 0.00 s (one)")


def test_a_policy_that_was_made_anew_is_another_one() -> None:
    story = Story("a", "b")
    story.hear("one")
    before = dict(story.versions)
    story.drop("b")
    story.put("b", uid="another")
    story.hear("one", before)
    assert story.says("b")[0] == "Unknown"
    story.hear("one")
    assert story.says("b")[0] == "True"


def test_where_we_come_late_the_state_of_now_is_known_and_that_before_is_not() -> None:
    story = Story("a", "b")
    story.hear("one")
    story.hear("two", {key("a"): story.versions[key("a")]})
    assert story.says("a") == ("Unknown", "1 of 2 nodes")
    story.now = 5.0
    assert story.says("a") == ("False", "1 of 2 nodes; not yet: two")
    assert story.says("b")[0] == "False"


def test_a_status_is_written_when_all_have_it_or_after_a_moment() -> None:
    story = Story()
    story.hear("one")
    story.hear("two")
    story.now = 1.0
    story.put("a")
    assert story.rollout.due(key("a"), story.now) == 1.0 + SETTLE_SECONDS
    story.hear("one")
    assert story.rollout.due(key("a"), 1.1) == 1.0 + SETTLE_SECONDS
    story.hear("two")
    assert story.rollout.due(key("a"), 1.2) <= 1.2
    story.now = 1.2
    story.writes("a")
    assert story.rollout.due(key("a"), 1.3) is None


def test_another_number_of_nodes_waits() -> None:
    story = Story("a")
    story.hear("one")
    story.writes("a")
    story.now = 50.0
    story.hear("two")
    assert story.rollout.due(key("a"), 50.0) == 50.0 + COUNT_SECONDS
    assert story.rollout.due(key("a"), 60.0) == 50.0 + COUNT_SECONDS


def test_faults_count_against_their_policy_only_and_doubts_against_all() -> None:
    story = Story("a", "b")
    said = report("one", story.versions, faults=[Fault(key("a"), "slot x: refused")], problems=())
    story.rollout.report(said, 0.0)
    story.hear("two")
    assert story.says("a") == ("False", "1 of 2 nodes; one: slot x: refused")
    assert story.says("b")[0] == "True"
    story.rollout.report(report("one", story.versions, faults=(), problems=["maps are full"]), 0.0)
    assert story.says("b") == ("False", "1 of 2 nodes; one: maps are full")


def test_a_silent_node_is_named_as_silent() -> None:
    story = Story("a")
    story.hear("one")
    story.now = 10.0
    story.put("a", 2)
    story.now = 10.0 + SILENT_SECONDS + 60
    assert "its agent is silent for 4 min" in story.says("a")[1]
    assert story.rollout.fleet.silent(story.now) == ["one"]


def test_a_report_survives_its_object_and_what_is_none_is_told() -> None:
    said = report("one", {key("a"): "1/u"}, faults=[Fault(key("a"), "x" * 1000)] * 3, problems=["p"] * 9)
    body = to_body(said, "2026-01-01T00:00:00Z")
    assert from_body(body) == said
    assert len(said.faults) == 1
    assert len(said.problems) == 1
    for bad in ({}, {"status": []}, {**body, "status": {"states": 1}}, {**body, "status": {"faults": [{}]}}):
        assert from_body(bad) is None


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda i: st.lists(i) | st.dictionaries(st.text(), i))
)
def test_whoever_writes_a_report_breaks_nothing(found: Any) -> None:
    for body in (
        {"metadata": {"name": "x"}, "status": found},
        {"metadata": {"name": "x"}, "status": {"states": found}},
    ):
        assert isinstance(from_body(body), NodeReport | None)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["put", "drop", "node"]), st.sampled_from("abc"), st.integers(0, 3)), max_size=40
)


@given(EVENTS)
@settings(max_examples=150)
def test_a_node_never_counts_for_what_it_does_not_have(events: list[tuple[str, str, int]]) -> None:
    """Nodes hold what was so at some moment; each goes on to a later one. We hear of that."""
    story, generations, past = Story(), {"a": 0, "b": 0, "c": 0}, [{}]
    at: dict[str, int] = {}
    for event, name, lag in events:
        story.now += 1
        if event == "put":
            generations[name] += 1
            story.put(name, generations[name])
            past.append(dict(story.versions))
        elif event == "drop" and key(name) in story.versions:
            story.drop(name)
            past.append(dict(story.versions))
        elif event == "node":
            at[name] = max(at.get(name, 0), len(past) - 1 - lag)
            story.hear(name, past[at[name]])
        for policy_name, version in story.versions.items():
            policy_ = story.rollout.get(policy_name)
            assert policy_ is not None
            tally = story.rollout.fleet.tally(policy_name, CNP, policy_.since, story.now)
            have = sum(past[moment].get(policy_name) == version for moment in at.values())
            assert tally.nodes == len(at)
            assert tally.enforced <= have
            up_to_date = sum(past[moment] == story.versions for moment in at.values())
            assert tally.enforced >= up_to_date


def test_a_timeline_forgets_and_does_not_grow() -> None:
    timeline = Timeline()
    timeline.start()
    first = timeline.state
    for generation in range(30_000):
        timeline.change(key("a"), str(generation))
    assert timeline.moment(first) is None
    assert timeline.moment(timeline.state) == timeline.now
    assert len(timeline._moments) <= 20_000


def test_conditions_keep_their_time_until_their_status_changes() -> None:
    first = to_raw(enforcement(Tally(2, 2), None, 0.0, 1), None, "then")
    again = to_raw(enforcement(Tally(2, 2), None, 0.0, 2), first, "now")
    assert again["lastTransitionTime"] == "then"
    assert to_raw(enforcement(Tally(2, 1), None, 0.0, 2), first, "now")["lastTransitionTime"] == "now"
    assert not is_told(validity((), (), 1), None)


def test_a_thousand_errors_are_a_short_message() -> None:
    errors = [PolicyError(CNP, "default", "a", f"spec.ingress[{n}]", "InvalidPort", "x" * 50) for n in range(1000)]
    made = validity(errors, (), 1)
    assert (made.type, made.status, made.reason) == (VALID, "False", "InvalidPort")
    assert len(made.message) <= 1024
    assert made.message.splitlines()[-1].startswith("and ")
    assert ENFORCED != VALID


def test_five_hundred_nodes_and_a_thousand_policies() -> None:
    """One edit costs each node one small report, and us no look at what is not concerned."""
    story = Story(*(f"p{n}" for n in range(1000)))
    nodes = [f"node-{n}" for n in range(500)]
    for node in nodes:
        story.hear(node)
    for name in story.rollout:
        assert story.rollout.wanted(name, story.now)[1].status == "True"
        story.writes(name.rpartition("/")[2])
    story.now = 5.0
    story.put("p7", 2)
    body = to_body(report("node-1", story.versions, faults=(), problems=()), "2026-01-01T00:00:00Z")
    assert len(str(body)) < 500
    said = [report(node, story.versions, faults=(), problems=()) for node in nodes]
    began, touched = time.process_time(), 0
    for one in said:
        touched += len(story.rollout.report(one, story.now + 0.1))
        story.rollout.due(key("p7"), story.now + 0.1)
    assert touched == 500  # the one policy, once for each node
    assert time.process_time() - began < 1.0
    story.now = 5.1
    assert story.says("p7") == ("True", "500 of 500 nodes, at worst after 0.10 s (node-0)")
    began = time.process_time()
    due = [name for name in story.rollout if story.rollout.due(name, story.now) is not None]
    assert due == [key("p7")]
    assert time.process_time() - began < 1.0


def test_a_fleet_without_nodes_enforces_nothing() -> None:
    fleet = Fleet({CNP: Timeline()})
    assert enforcement(fleet.tally("x", CNP, 1, 0.0), None, 100.0, 1).reason == "NoNodes"
