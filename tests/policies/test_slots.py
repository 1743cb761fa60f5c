"""Slots: stable names, and the law that no request is ever judged by rules that are not its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.compiling.slots import SlotBook, assign
from policies.ir import DirectionPolicy, RuleSet, Slot, SlotState, Verdict
from policies.types import Direction, Protocol
from tests.policies.kernel import verdict
from tests.policies.make import Node, peers, pod, policy, to_ports
from tests.policies.worlds import PODS, policies

DEATHSTAR = pod("deathstar", "10.0.0.1", org="empire", craft="deathstar")
TIE = pod("tiefighter", "10.0.0.2", org="empire", craft="tiefighter")
XWING = pod("xwing", "10.0.0.3", org="alliance", craft="xwing")
POST = {"method": "POST", "path": "/v1/request-landing"}
PUT = {"method": "PUT", "path": "/v1/exhaust-port"}


def rule(name: str, *who: dict[str, Any], http: Any = None, port: str = "80") -> dict[str, Any]:
    """An ingress policy of the death star: these may come, with these requests."""
    clause = {"toPorts": [to_ports(port, http=http)]} | ({"fromEndpoints": peers(*who)} if who else {})
    return policy(name, subject={"craft": "deathstar"}, ingress=[clause])


def galaxy(node: Node, *objects: dict[str, Any]) -> dict[str, Slot]:
    """Apply these policies; the slots by name."""
    assert not node.apply(DEATHSTAR, TIE, XWING, *objects)
    return {slot.name: slot for slot in node.assigned().slots}


def test_a_slot_is_named_by_group_direction_protocol_and_port() -> None:
    slots = galaxy(Node(), rule("r", {"org": "empire"}, http=[POST]), rule("s", http=[PUT], port="90-99"))
    assert sorted(slots) == ["ingress:256:tcp:80", "ingress:256:tcp:90-99"]


def test_an_edit_of_rules_keeps_the_slot() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    slots = galaxy(node, rule("r", {"org": "empire"}, http=[PUT]))
    assert [(s.name, s.state, s.rule_set.http[0].method) for s in slots.values()] == [
        ("ingress:256:tcp:80", SlotState.ACTIVE, "PUT")
    ]


def test_another_policy_for_the_same_peers_keeps_the_slot() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    slots = galaxy(node, rule("other", {"org": "empire"}, http=[PUT]))
    assert [slot.state for slot in slots.values()] == [SlotState.ACTIVE]


def test_peers_that_part_retire_their_slot() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, {"org": "alliance"}, http=[POST]))
    slots = galaxy(node, rule("r", {"org": "empire"}, http=[POST]), rule("s", {"org": "alliance"}, http=[PUT]))
    assert {name: slot.state for name, slot in slots.items()} == {
        "ingress:256:tcp:80": SlotState.RETIRED,
        "ingress:256:tcp:80:1": SlotState.ACTIVE,
        "ingress:256:tcp:80:2": SlotState.ACTIVE,
    }
    assert slots["ingress:256:tcp:80"].rule_set == RuleSet()


def test_a_retired_slot_stays_until_it_is_forgotten_and_its_name_is_not_given_away() -> None:
    node = Node()
    galaxy(node, rule("r", http=[POST]))
    for _ in range(2):
        slots = galaxy(node, rule("r", http=[POST], port="80-90"))
        assert slots["ingress:256:tcp:80"].state is SlotState.RETIRED
    back = galaxy(node, rule("r", http=[POST]))
    assert back["ingress:256:tcp:80"].state is SlotState.RETIRED
    assert back["ingress:256:tcp:80:1"].state is SlotState.ACTIVE
    node.book = node.book.forget(["ingress:256:tcp:80", "ingress:256:tcp:80:1"])
    assert sorted(galaxy(node, rule("r", http=[POST]))) == ["ingress:256:tcp:80-90", "ingress:256:tcp:80:1"]


def test_the_wildcard_slot_goes_on_for_those_of_its_peers_who_are_still_let_in() -> None:
    node = Node()
    galaxy(node, rule("r", http=[POST]))
    slots = galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    assert {slot.state for slot in slots.values()} == {SlotState.ACTIVE}


def test_who_leaves_the_wildcard_for_rules_of_its_own_takes_the_slot_with_it() -> None:
    node = Node()
    galaxy(node, rule("r", http=[POST]))
    slots = galaxy(node, rule("r", http=[POST]), rule("s", {"org": "empire"}, http=[PUT]))
    assert slots["ingress:256:tcp:80"].state is SlotState.RETIRED
    assert len(slots) == 3


def test_one_who_was_denied_for_a_while_is_not_judged_by_the_others_rules() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, {"org": "alliance"}, http=[POST]))
    kept = galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    assert kept["ingress:256:tcp:80"].state is SlotState.ACTIVE
    slots = galaxy(node, rule("r", {"org": "empire"}, http=[POST]), rule("s", {"org": "alliance"}, http=[PUT]))
    assert slots["ingress:256:tcp:80"].state is SlotState.RETIRED


def test_a_policy_that_goes_drains_its_slot() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    slot = galaxy(node)["ingress:256:tcp:80"]
    assert (slot.state, slot.rule_set.allows_all) == (SlotState.DRAINED, True)


def test_an_l4_policy_in_its_place_drains_the_slot_in_its_name() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    slot = galaxy(node, rule("l4", {"org": "empire"}))["ingress:256:tcp:80"]
    assert slot.state is SlotState.DRAINED
    assert [origin.name for origin in slot.rule_set.wildcard] == ["l4"]


def test_a_drained_slot_whose_peers_are_judged_again_is_retired() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    galaxy(node)
    slots = galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    assert slots["ingress:256:tcp:80"].state is SlotState.RETIRED
    assert slots["ingress:256:tcp:80:1"].state is SlotState.ACTIVE


def test_rules_do_not_change_under_one_who_is_denied_now() -> None:
    """A request of his may be on its way, or wait in the proxy behind another one."""
    node = Node()
    galaxy(node, rule("r", {"craft": "tiefighter"}, {"org": "alliance"}, http=[POST]))
    kept = galaxy(node, rule("r", {"craft": "tiefighter"}, http=[POST]))
    assert kept["ingress:256:tcp:80"].state is SlotState.ACTIVE, "they are still his own"
    slots = galaxy(node, rule("r", {"craft": "tiefighter"}, http=[PUT]))
    assert slots["ingress:256:tcp:80"].state is SlotState.RETIRED
    assert slots["ingress:256:tcp:80:1"].state is SlotState.ACTIVE
    again = galaxy(node, rule("r", {"craft": "tiefighter"}, http=[POST]))
    assert again["ingress:256:tcp:80:1"].state is SlotState.ACTIVE, "nobody was ever denied there"


def test_a_slot_does_not_let_everything_pass_under_one_who_is_denied_now() -> None:
    node = Node()
    galaxy(node, rule("r", {"craft": "tiefighter"}, {"org": "alliance"}, http=[POST]))
    slots = galaxy(node, rule("l4", {"craft": "tiefighter"}))
    assert slots["ingress:256:tcp:80"].state is SlotState.RETIRED


def test_who_is_plainly_allowed_now_is_not_left_to_the_others_rules() -> None:
    node = Node()
    galaxy(node, rule("r", {"craft": "tiefighter"}, {"org": "alliance"}, http=[POST]))
    slots = galaxy(node, rule("r", {"craft": "tiefighter"}, http=[POST]), rule("s", {"org": "alliance"}))
    assert slots["ingress:256:tcp:80"].state is SlotState.RETIRED


def test_slots_of_a_group_that_is_gone_are_retired() -> None:
    node = Node()
    galaxy(node, rule("r", http=[POST]))
    assert not node.apply(TIE, XWING)
    assert [slot.state for slot in node.assigned().slots] == [SlotState.RETIRED]


def test_the_book_survives_a_restart() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, {"org": "alliance"}, http=[POST]))
    galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    assert SlotBook.from_dict(node.book.to_dict()) == node.book
    assert SlotBook.from_dict({}) == SlotBook()


def test_a_book_that_an_earlier_agent_wrote_number_by_number_is_read() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "empire"}, http=[POST]))
    stored = node.book.to_dict()
    (record,) = node.book.records
    stored["slots"][0]["sent"] = list(record.sent)
    assert SlotBook.from_dict(stored) == node.book
    stored["slots"][0]["sent"] = "no bitmap"
    with pytest.raises(ValueError, match="stored slots"):
        SlotBook.from_dict(stored)


def test_groups_that_did_not_change_keep_their_policy() -> None:
    node = Node()
    node.apply(DEATHSTAR, TIE, XWING, rule("r", http=[POST]))
    before = {policy.group: policy for policy in node.assigned().policies}
    node.apply(DEATHSTAR, TIE, XWING, pod("probe", "10.0.0.9", org="hutts"), rule("r", http=[POST]))
    after = {policy.group: policy for policy in node.assigned().policies}
    assert all(after[group] is policy for group, policy in before.items())
    (record,) = node.book.records
    assert node.group("probe") in record.sent


def test_a_pod_with_new_labels_is_not_judged_by_the_rules_of_those_it_left() -> None:
    node = Node()
    three = [rule("r", {"org": "empire"}, {"org": "alliance"}, http=[POST])]
    galaxy(node, *three)
    turned = pod("xwing", "10.0.0.3", org="pirates", craft="xwing")
    node.apply(DEATHSTAR, TIE, turned, *three, rule("s", {"org": "pirates"}, http=[PUT]))
    slots = {slot.name: slot.state for slot in node.assigned().slots}
    assert slots == {
        "ingress:256:tcp:80": SlotState.RETIRED,
        "ingress:256:tcp:80:1": SlotState.ACTIVE,
        "ingress:256:tcp:80:2": SlotState.ACTIVE,
    }


def test_a_pod_that_joins_others_brings_its_connections_with_it() -> None:
    node = Node()
    wingman = pod("wingman", "10.0.0.4", org="empire", craft="tiefighter")
    rules = rule("r", {"org": "empire"}, http=[POST])
    node.apply(DEATHSTAR, TIE, XWING, wingman, rules)
    before = node.assigned()
    node.apply(DEATHSTAR, TIE, XWING, pod("wingman", "10.0.0.4", org="alliance", craft="xwing"), rules)
    assert node.assigned().policies == before.policies
    (record,) = node.book.records
    assert node.group("xwing") in record.sent
    node.apply(DEATHSTAR, TIE, XWING, rule("r", {"org": "empire"}, http=[PUT]))
    assert {slot.state for slot in node.assigned().slots} == {SlotState.RETIRED, SlotState.ACTIVE}


def test_a_local_pod_with_new_labels_takes_the_slots_of_its_replicas_with_it() -> None:
    node = Node()
    replica = pod("deathstar-2", "10.0.0.4", org="empire", craft="deathstar")
    node.apply(DEATHSTAR, replica, TIE, rule("r", http=[POST]))
    node.assigned()
    turned = pod("deathstar-2", "10.0.0.4", org="empire", craft="museum")
    node.apply(DEATHSTAR, turned, TIE, rule("r", http=[POST]))
    states = {slot.name: slot.state for slot in node.assigned().slots}
    assert states == {"ingress:256:tcp:80": SlotState.RETIRED, "ingress:256:tcp:80:1": SlotState.ACTIVE}


def test_a_slot_that_nobody_was_sent_to_goes_to_the_next_who_needs_one() -> None:
    node = Node()
    galaxy(node, rule("r", {"org": "nobody-yet"}, http=[POST]), rule("any", http=[PUT]))
    again = galaxy(node, rule("r", {"org": "nobody-yet"}, http=[POST]), rule("any", http=[PUT]))
    assert [slot.state for slot in again.values()] == [SlotState.ACTIVE]


Connection = tuple[str, str, str, int]  # slot, address of the local pod, address of its peer, port


class Galaxy:
    """A node where every pod opens a connection to every slot that it is sent to, and never closes one."""

    def __init__(self) -> None:
        self.node = Node()
        self.connections: set[Connection] = set()
        self.rules: dict[str, RuleSet] = {}  # of each slot, at last

    def step(self, pods: list[dict[str, Any]], world: list[dict[str, Any]]) -> dict[str, Slot]:
        assert not self.node.apply(*pods, *world)
        compiled, book = self.node.compile().node, self.node.book
        now = self.node.assigned()
        assert assign(compiled, _looking_twice(book)) == (replace(now, revision=compiled.revision), self.node.book)
        assert assign(now, self.node.book) == (now, self.node.book)  # equal input leaves everything as it is
        slots = {slot.name: slot for slot in now.slots}
        identities = {address.prefix.partition("/")[0]: address.identity for address in now.addresses}
        groups = {endpoint.addresses[0]: endpoint.group for endpoint in now.endpoints}
        policies = {policy.group: policy for policy in now.policies}
        living = {c for c in self.connections if c[0] in slots and c[1] in groups and c[2] in identities}
        for name, local, peer, port in living:
            policy = policies[groups[local]].direction(slots[name].direction)
            assert_judged_by_own_rules(policy, slots[name], (identities[peer], port), self.rules.get(name))
        self.connections = living
        self.rules = {name: slot.rule_set for name, slot in slots.items()}
        for local, group in groups.items():
            for direction in Direction:
                policy = policies[group].direction(direction)
                self._open(policy, local, identities)
        return slots

    def _open(self, policy: DirectionPolicy, local: str, identities: dict[str, int]) -> None:
        for port in {port for place in policy.ports for port in (place.ports.first, place.ports.last)}:
            for peer, identity in identities.items():
                found, entry = verdict(policy, identity, Protocol.TCP, port)
                if found is Verdict.REDIRECT and entry is not None:
                    self.connections.add((entry.slot, local, peer, port))

    def forget(self, slots: dict[str, Slot]) -> None:
        """The listeners of retired and drained slots go, and their connections with them."""
        gone = {name for name, slot in slots.items() if slot.state is not SlotState.ACTIVE}
        self.node.book = self.node.book.forget(gone)
        self.connections = {c for c in self.connections if c[0] not in gone}


def _looking_twice(book: SlotBook) -> SlotBook:
    """The same book, that takes no group for unchanged."""
    if book.seen is None:
        return book
    groups = {group: replace(known, is_current=False) for group, known in book.seen.groups.items()}
    return replace(book, seen=replace(book.seen, groups=groups))


def assert_judged_by_own_rules(
    policy: DirectionPolicy, slot: Slot, peer: tuple[int, int], before: RuleSet | None
) -> None:
    if slot.state is SlotState.RETIRED:
        assert slot.rule_set == RuleSet()
        return
    found, entry = verdict(policy, peer[0], slot.protocol, peer[1])
    if found is Verdict.REDIRECT:
        assert entry is not None
        assert (slot.state, slot.rule_set) == (SlotState.ACTIVE, entry.rule_set)
    elif found is Verdict.ALLOW:
        assert (slot.state, slot.rule_set.allows_all) == (SlotState.DRAINED, True)
    elif before is not None and slot.rule_set.allows_all:
        assert before.allows_all, "nothing opens to a request of his that is on its way"
    else:
        assert before in (None, slot.rule_set)


FEW = [*PODS[:3], pod("replica", "10.9.9.9", app="a", tier="x")]
TURNED = [pod(p["metadata"]["name"], p["status"]["podIP"], app="c", tier=p["metadata"]["labels"]["tier"]) for p in FEW]
_who = st.sampled_from([None, {"app": "a"}, {"app": "b"}, {"app": "c"}, {"tier": "x"}, {"tier": "y"}])
_what = st.sampled_from([[{"method": "GET"}], [{"method": "GET"}], [{"method": "POST"}], None])
_where = st.sampled_from(["80", "80", "80", "80-90"])
_clause = st.builds(
    lambda who, what, where: {"toPorts": [to_ports(where, http=what)]} | ({"fromEndpoints": peers(who)} if who else {}),
    *(_who, _what, _where),
)
_subject = st.sampled_from([{}, {}, {"app": "a"}, {"app": "c"}])
_policy = st.builds(
    lambda subject, found: policy("p", subject=subject, ingress=found),
    _subject,
    st.lists(_clause, min_size=1, max_size=3),
)
close_worlds = st.lists(_policy, max_size=2).map(
    lambda found: [{**item, "metadata": {**item["metadata"], "name": f"p{i}"}} for i, item in enumerate(found)]
)
presence = st.lists(st.sampled_from(["there", "there", "turned", "gone"]), min_size=len(FEW), max_size=len(FEW))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(
        st.tuples(st.one_of(close_worlds, close_worlds, policies(most=2)), presence, st.booleans()),
        min_size=2,
        max_size=5,
    )
)
def test_no_connection_is_ever_judged_by_rules_that_are_not_its_own(history: list[tuple[Any, Any, bool]]) -> None:
    galaxy_ = Galaxy()
    for world, present, is_forgetful in history:
        choice = {"there": FEW, "turned": TURNED}
        slots = galaxy_.step([choice[what][i] for i, what in enumerate(present) if what in choice], world)
        if is_forgetful:
            galaxy_.forget(slots)
