"""NodePolicy -> ResourceTable: every slot or an error, and nothing that would not be told the same way twice."""

from __future__ import annotations

from envoy.config.listener.v3.listener_pb2 import Listener

from policies.ir import NodePolicy, SlotState
from policies.types import Direction
from tests.xds.make import node, rule, slot
from xds.resources import CLUSTER, FILTER, LISTENER, Key, ResourceTable
from xds.snapshot import snapshot
from xds.translator import Marks, Options, Translator, translate

CLUSTERS = ("original-destination", "original-destination:websocket")


def listener(table: ResourceTable, name: str) -> Listener:
    return Listener.FromString(table.by_key()[Key(LISTENER, name)].body)


def test_each_slot_is_a_listener_and_a_filter_of_its_name() -> None:
    table = translate(node(slot("b"), slot("a")), {"a": 10_000, "b": 10_001})
    assert [(r.key.type_url, r.key.name) for r in table.resources] == [
        *((CLUSTER, name) for name in CLUSTERS),
        (FILTER, "a"),
        (FILTER, "b"),
        (LISTENER, "a"),
        (LISTENER, "b"),
    ]
    assert snapshot(table.resources).problems() == []


def test_a_bad_slot_is_an_error_and_the_others_go_on() -> None:
    table = translate(node(slot("good"), slot("bad", rule("GET", "["))), {"good": 10_000, "bad": 10_001})
    [error] = table.errors
    assert error.slot == "bad"
    assert error.message.startswith("path: regex '[': missing ]")
    assert "CiliumNetworkPolicy default/rule1 spec.ingress[0].toPorts[0].rules.http[0]" in error.message
    assert {r.key.name for r in table.resources} == {"good", *CLUSTERS}


def test_a_slot_without_a_port_has_no_listener_and_keeps_its_filter() -> None:
    table = translate(node(slot("a")), {})
    assert not table.errors
    assert [r.key for r in table.resources] == [*(Key(CLUSTER, name) for name in CLUSTERS), Key(FILTER, "a")]


def test_a_port_is_a_number_that_can_be_listened_on() -> None:
    assert [e.message for e in translate(node(slot("a")), {"a": 0}).errors] == ["0 is not a port"]
    assert [e.message for e in translate(node(slot("a")), {"a": 65536}).errors] == ["65536 is not a port"]


def test_no_slots_are_the_clusters_alone() -> None:
    assert [r.key.type_url for r in translate(NodePolicy(1), {}).resources] == [CLUSTER] * len(CLUSTERS)


def test_an_edit_of_rules_changes_the_filter_and_nothing_else() -> None:
    before = translate(node(slot("a", rule("GET", "/a"))), {"a": 10_000})
    after = translate(node(slot("a", rule("GET", "/b"))), {"a": 10_000})
    changed = [r.key.type_url for r, other in zip(before.resources, after.resources, strict=True) if r != other]
    assert changed == [FILTER]


def test_both_families_are_listened_to_unless_the_node_has_but_one() -> None:
    both = listener(translate(node(slot("a")), {"a": 10_000}), "a")
    one = listener(translate(node(slot("a")), {"a": 10_000}, Options(ipv6=False)), "a")
    assert [a.address.socket_address.address for a in both.additional_addresses] == ["::"]
    assert not one.additional_addresses


def test_marks_tell_the_directions_apart() -> None:
    slots = (slot("in"), slot("out", direction=Direction.EGRESS))
    table = translate(node(*slots), {"in": 10_000, "out": 10_001})
    marks = {name: listener(table, name).socket_options[0].int_value for name in ("in", "out")}
    assert marks == {"in": 0xC00, "out": 0xD00}


def test_options_are_obeyed() -> None:
    marks = {Direction.INGRESS: Marks(accepted=1, upstream=2)}
    made = listener(translate(node(slot("a")), {"a": 10_000}, Options(marks=marks, reuse_port=False)), "a")
    assert made.socket_options[0].int_value == 1
    assert made.enable_reuse_port.value is False


def test_a_translator_that_remembers_says_what_one_that_does_not_says() -> None:
    translator = Translator()
    nodes = [
        (node(slot("a", rule("GET", "/a")), slot("b")), {"a": 10_000, "b": 10_001}),
        (node(slot("a", rule("GET", "/b")), slot("b")), {"a": 10_000, "b": 10_001}),
        (node(slot("a", rule("GET", "[")), slot("b")), {"a": 10_000, "b": 10_002}),
        (node(slot("a", rule("GET", "/b")), slot("b", state=SlotState.RETIRED)), {"a": 10_000, "b": 10_002}),
        (node(slot("b")), {"b": 10_002}),
    ]
    for policy, ports in nodes:
        assert translator.translate(policy, ports) == translate(policy, ports)
