"""Numbers that nodes agree on by making objects: the same everywhere, whoever is first, whatever collides."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.compiling.agreement import Agreement, candidates
from policies.compiling.compiler import Compiled, Compiler
from policies.compiling.identity import IdentityAllocator
from policies.labels import identity_labels
from policies.objects import Identity, Namespace, Pod, PodKey, Published
from policies.types import IDENTITY_UNMANAGED
from policies.world import World

SHIPS = {"app": "ship"}
MOONS = {"app": "moon"}


def labels_of(pod_labels: dict[str, str]) -> tuple[str, ...]:
    return identity_labels(pod_labels, namespace="default", namespace_labels={})


def agreed(*identities: Identity) -> MappingProxyType[str, Identity]:
    return MappingProxyType({str(identity.number): identity for identity in identities})


@dataclass
class Node:
    """One node: what it knows, and the numbers that it gives."""

    compiler: Compiler = field(init=False)
    identities: IdentityAllocator = field(default_factory=lambda: IdentityAllocator(agreement=Agreement()))
    objects: tuple[Identity, ...] = ()
    pods: tuple[Pod, ...] = ()

    def __post_init__(self) -> None:
        self.compiler = Compiler(self.identities)

    def compiled(self) -> Compiled:
        pods = {PodKey(pod.namespace, pod.name): pod for pod in sorted(self.pods, key=lambda pod: pod.name)}
        world = World({"default": Namespace("default")}, pods, identities=agreed(*self.objects))
        return self.compiler.compile(world, {}, (), 1)

    def number_at(self, address: str) -> int:
        return {found.prefix: found.identity for found in self.compiled().node.addresses}[f"{address}/32"]


def pod(name: str, labels: dict[str, str], address: str) -> Pod:
    return Pod("default", name, labels, (address,))


def test_nodes_that_know_nothing_of_each_other_take_the_same_number() -> None:
    one, two = (Node(pods=(pod(name, SHIPS, "10.0.0.1"),)) for name in ("a", "b"))
    assert one.number_at("10.0.0.1") == two.number_at("10.0.0.1") == next(candidates(labels_of(SHIPS)))


def test_an_agreed_number_is_taken_and_one_that_others_have_is_left_alone() -> None:
    first, second = islice(candidates(labels_of(SHIPS)), 2)
    assert (
        Node(objects=(Identity(700, labels_of(SHIPS)),), pods=(pod("a", SHIPS, "10.0.0.1"),)).number_at("10.0.0.1")
        == 700
    )
    taken = Node(objects=(Identity(first, labels_of(MOONS)),), pods=(pod("a", SHIPS, "10.0.0.1"),))
    assert taken.number_at("10.0.0.1") == second


def test_who_loses_the_race_for_a_number_moves_on_and_nobody_is_taken_for_another() -> None:
    first, second = islice(candidates(labels_of(SHIPS)), 2)
    node = Node(pods=(pod("a", SHIPS, "10.0.0.1"), pod("b", MOONS, "10.0.0.2")))
    assert node.number_at("10.0.0.1") == first
    before = node.number_at("10.0.0.2")
    node.objects = (Identity(first, labels_of(MOONS)),)  # another node's object was first at the server
    assert (node.number_at("10.0.0.1"), node.number_at("10.0.0.2")) == (second, first)
    assert before != first
    assert node.identities.labels(first) == labels_of(MOONS)
    assert node.identities.labels(second) == labels_of(SHIPS)


def test_of_two_numbers_for_the_same_labels_the_older_one_counts_and_both_are_known() -> None:
    young, old = (
        Identity(300, labels_of(SHIPS), "2026-02-01T00:00:00Z"),
        Identity(900, labels_of(SHIPS), "2026-01-01T00:00:00Z"),
    )
    node = Node(objects=(young,), pods=(pod("a", SHIPS, "10.0.0.1"),))
    assert node.number_at("10.0.0.1") == 300
    node.objects = (young, old)
    assert node.number_at("10.0.0.1") == 900
    assert node.identities.labels(300) == labels_of(SHIPS)


def test_an_object_that_goes_while_its_number_is_in_use_changes_nothing() -> None:
    node = Node(objects=(Identity(700, labels_of(SHIPS)),), pods=(pod("a", SHIPS, "10.0.0.1"),))
    assert node.number_at("10.0.0.1") == 700
    node.objects = ()
    assert node.number_at("10.0.0.1") == 700


def test_a_pod_of_another_node_is_who_its_node_says_and_by_number_alone_nobody_until_that_is_agreed() -> None:
    whole = Pod("default", "a", addresses=("10.0.0.1",), published=Published(500, labels_of(SHIPS)))
    bare = Pod("default", "b", addresses=("10.0.0.2",), published=Published(700))
    node = Node(pods=(whole, bare))
    assert node.number_at("10.0.0.1") == next(candidates(labels_of(SHIPS)))  # labels are the truth, numbers are names
    assert node.number_at("10.0.0.2") == IDENTITY_UNMANAGED
    node.objects = (Identity(700, labels_of(MOONS)),)
    assert node.number_at("10.0.0.2") == 700
    assert node.identities.labels(700) == labels_of(MOONS)
    node.objects = (Identity(700, labels_of(SHIPS)),)  # made anew with other labels
    assert node.number_at("10.0.0.2") == node.number_at("10.0.0.1") == 700


def test_what_was_stored_is_kept_unless_others_have_agreed_otherwise() -> None:
    node = Node(pods=(pod("a", SHIPS, "10.0.0.1"), pod("b", MOONS, "10.0.0.2")))
    numbers = (node.number_at("10.0.0.1"), node.number_at("10.0.0.2"))
    stored = node.identities.to_dict()
    again = Node(identities=IdentityAllocator.from_dict(stored, Agreement()), pods=node.pods)
    assert (again.number_at("10.0.0.1"), again.number_at("10.0.0.2")) == numbers
    moved = Node(
        identities=IdentityAllocator.from_dict(stored, Agreement()),
        pods=node.pods,
        objects=(Identity(numbers[0], labels_of(MOONS)),),
    )
    assert moved.number_at("10.0.0.2") == numbers[0]
    assert moved.number_at("10.0.0.1") not in numbers


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(256, 262), st.sampled_from(["", "2026"])), max_size=12),
    st.permutations("abcdef"),
)
def test_whatever_objects_come_and_go_each_label_set_has_one_number_and_each_number_one(
    story: list[tuple[str, int, str]], order: list[str]
) -> None:
    pods = tuple(pod(name, {"app": name}, f"10.0.0.{i}") for i, name in enumerate(order))
    node = Node(pods=pods)
    objects: dict[int, Identity] = {}
    for app, number, created in story:
        if number in objects and objects[number].labels == labels_of({"app": app}):
            del objects[number]
        else:
            objects[number] = Identity(number, labels_of({"app": app}), created)
        node.objects = tuple(objects.values())
        addresses = node.compiled().node.addresses
        numbers = {found.prefix: found.identity for found in addresses if found.prefix.startswith("10.")}
        assert len(set(numbers.values())) == len(pods)
        for i, name in enumerate(order):
            own = numbers[f"10.0.0.{i}/32"]
            mine = [found for found in objects.values() if found.labels == labels_of({"app": name})]
            assert node.identities.labels(own) == labels_of({"app": name})
            assert not mine or own == min(mine, key=lambda found: (found.created, found.number)).number


@pytest.mark.parametrize("pods", [SHIPS, MOONS])
def test_every_number_is_tried_once(pods: dict[str, str]) -> None:
    assert len(set(candidates(labels_of(pods)))) == 65535 - 256 + 1
