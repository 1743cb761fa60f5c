"""Labels, selectors and identities: who is who, and who is chosen."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policies.compiling.identity import RESTING_MAX, IdentitiesExhausted, IdentityAllocator
from policies.compiling.selections import Selection, SelectorCache
from policies.labels import Label, canonical_key, cidr_key, identity_labels, is_identity_relevant, parse_label
from policies.selectors import Chooser, Operator, Requirement, Selector, exists, label_map, within
from policies.types import RESERVED_LABELS


def test_replicas_share_an_identity() -> None:
    labels = {
        "app": "web",
        "pod-template-hash": "5d4",
        "controller-revision-hash": "7",
        "app.kubernetes.io/name": "web",
    }
    assert identity_labels(labels, namespace="shop", namespace_labels={"team": "red"}) == (
        "k8s:app.kubernetes.io/name=web",
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.team=red",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
        "k8s:io.kubernetes.pod.namespace=shop",
    )


def test_nobody_can_label_a_pod_into_another_namespace() -> None:
    forged = {"io.kubernetes.pod.namespace": "kube-system", "io.cilium.k8s.policy.serviceaccount": "admin"}
    labels = identity_labels(forged, namespace="shop", namespace_labels={}, service_account="web")
    assert "k8s:io.kubernetes.pod.namespace=shop" in labels
    assert "k8s:io.cilium.k8s.policy.serviceaccount=web" in labels
    assert not any("admin" in label or "kube-system" in label for label in labels)


@pytest.mark.parametrize(
    "key", ["statefulset.kubernetes.io/pod-name", "batch.kubernetes.io/controller-uid", "k8s.io/x"]
)
def test_churning_labels_make_no_identity(key: str) -> None:
    assert not is_identity_relevant(key)


def test_a_key_without_source_is_any_source() -> None:
    assert (canonical_key("app"), canonical_key("k8s:app")) == ("any:app", "k8s:app")
    assert parse_label("k8s:a/b=c=d") == Label("k8s", "a/b", "c=d")
    assert str(parse_label("reserved:host")) == "reserved:host"


_keys = st.sampled_from(["any:app", "k8s:app", "k8s:tier", "any:tier", "reserved:world", "any:host"])
_values = st.lists(st.sampled_from(["a", "b", ""]), min_size=1, max_size=2).map(lambda v: tuple(sorted(set(v))))
_requirements = st.one_of(
    st.builds(Requirement, _keys, st.sampled_from([Operator.IN, Operator.NOT_IN]), _values),
    st.builds(Requirement, _keys, st.sampled_from([Operator.EXISTS, Operator.DOES_NOT_EXIST])),
)
selectors = st.lists(_requirements, max_size=3).map(Selector.of)
label_sets = st.sets(st.sampled_from(["k8s:app=a", "k8s:app=b", "k8s:tier=a", "k8s:tier", "other:app=b"])).map(
    lambda labels: tuple(sorted(labels))
)


@given(st.dictionaries(st.integers(256, 270), label_sets), selectors)
def test_a_new_selector_chooses_whom_it_matches(identities: dict[int, tuple[str, ...]], selector: Selector) -> None:
    cache = SelectorCache()
    for number, labels in identities.items():
        cache.add(number, labels)
    everybody = identities | {n: labels for n, labels in RESERVED_LABELS.items() if n}
    expected = {n for n, labels in everybody.items() if selector.matches(label_map(labels))}
    assert set(cache.acquire(selector).members) == expected


class CacheUnderChange(RuleBasedStateMachine):
    """Whatever comes and goes in whatever order, a selection is what a fresh look would give."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = SelectorCache()
        self.known: dict[int, tuple[str, ...]] = {n: labels for n, labels in RESERVED_LABELS.items() if n}
        self.held: list[Selection] = []
        self.seen: dict[Selection, set[int]] = {}

    @rule(number=st.integers(256, 262), labels=label_sets)
    def identity_comes(self, number: int, labels: tuple[str, ...]) -> None:
        self.known.setdefault(number, labels)
        self.cache.add(number, labels)

    @rule(number=st.integers(256, 262))
    def identity_goes(self, number: int) -> None:
        self.known.pop(number, None)
        self.cache.remove(number)

    @rule(selector=selectors)
    def selector_comes(self, selector: Selector) -> None:
        self.held.append(self.cache.acquire(selector))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def selector_goes(self, data: st.DataObject) -> None:
        self.cache.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def selections_are_current(self) -> None:
        assert len(self.cache) == len({selection.selector for selection in self.held})
        for selection in self.held:
            now = {n for n, labels in self.known.items() if selection.selector.matches(label_map(labels))}
            assert set(selection.members) == now
        told = self.cache.drain()
        for selection in set(self.held):
            now = set(selection.members)
            if selection in self.seen:
                assert set(told.get(selection, ())) == self.seen[selection] ^ now
            self.seen[selection] = now
        self.seen = {selection: members for selection, members in self.seen.items() if selection in self.held}


TestCacheUnderChange = CacheUnderChange.TestCase
TestCacheUnderChange.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_world_is_chosen_in_both_families() -> None:
    world = SelectorCache().acquire(Selector.of([Requirement("reserved:world", Operator.EXISTS)]))
    assert set(world.members) == {2, 9, 10}


def test_numbers_are_stable_and_rest_after_release() -> None:
    book = IdentityAllocator()
    a, b = book.allocate(("k8s:a",)), book.allocate(("k8s:b",))
    assert (a, b, book.allocate(("k8s:a",))) == (256, 257, 256)
    book.release(a)
    assert book.allocate(("k8s:c",)) == 258
    assert book.labels(a) == ("k8s:a",)  # flows may still name it
    assert book.allocate(("k8s:a",)) == a
    assert book.labels(1) == ("reserved:host",)
    assert book.labels(4711) == ()


def test_the_book_survives_a_restart_and_stays_small() -> None:
    book = IdentityAllocator()
    for i in range(RESTING_MAX + 10):
        book.release(book.allocate((f"k8s:{i}",)))
    kept = book.allocate(("k8s:kept",))
    again = IdentityAllocator.from_dict(book.to_dict())
    assert again.to_dict() == book.to_dict()
    assert len(book.to_dict()["resting"]) <= RESTING_MAX
    assert again.allocate(("k8s:kept",)) == kept
    assert again.allocate(("k8s:new",)) == book.allocate(("k8s:new",))


@pytest.mark.parametrize(
    "stored",
    [
        {"identities": {"256": ["a"], "257": ["a"]}},
        {"identities": {"1": ["a"]}},
        {"identities": {"256": ["a"]}, "resting": [[256, ["b"]]]},
    ],
)
def test_a_book_that_contradicts_itself_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="stored identities"):
        IdentityAllocator.from_dict(stored)


def test_when_all_numbers_are_taken_the_longest_rested_goes_first() -> None:
    book = IdentityAllocator(256, 258)
    for name in "abc":
        book.allocate((name,))
    with pytest.raises(IdentitiesExhausted):
        book.allocate(("d",))
    book.release(257)
    book.release(256)
    assert book.allocate(("d",)) == 257
    assert book.allocate(("b",)) == 256


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=40))
def test_no_number_stands_for_two(history: list[tuple[bool, str]]) -> None:
    book = IdentityAllocator(256, 261)
    for is_coming, name in history:
        number = book.allocate((name,)) if is_coming else book.number((name,))
        if number is not None and not is_coming:
            book.release(number)
        in_use = book.in_use()
        assert len(set(in_use.values())) == len(in_use)


def test_who_came_and_went_between_two_looks_has_not_changed_anything() -> None:
    cache = SelectorCache()
    chosen = cache.acquire(Selector.of([Requirement("any:app", Operator.EXISTS)]))
    cache.add(256, ("k8s:app=a",))
    cache.add(257, ("k8s:app=b",))
    cache.remove(256)
    assert {selection: set(flips) for selection, flips in cache.drain().items()} == {chosen: {257}}
    assert not cache.drain()


@pytest.mark.parametrize(
    ("requirement", "who"),
    [
        (Requirement("cidr:10.0.0.0/8", Operator.EXISTS), {"10.0.0.0/8", "10.1.0.0/16"}),
        (Requirement("cidr:10.0.0.0/8", Operator.IN, ("",)), {"10.0.0.0/8", "10.1.0.0/16"}),
        (Requirement("cidr:10.0.0.0/8", Operator.IN, ("x",)), set()),
        (Requirement("cidr:10.1.0.0/16", Operator.DOES_NOT_EXIST), {"10.0.0.0/8", "fd00::/8"}),
        (Requirement("cidr:0.0.0.0/0", Operator.EXISTS), {"10.0.0.0/8", "10.1.0.0/16"}),
        (Requirement("cidr:0--0/0", Operator.EXISTS), {"fd00::/8"}),
        (Requirement("cidr:nonsense", Operator.EXISTS), set()),
        (Requirement("any:10.1.0.0/16", Operator.EXISTS), {"10.1.0.0/16"}),
    ],
)
def test_keys_of_prefixes_hold_by_containment(requirement: Requirement, who: set[str]) -> None:
    labels = {text: (cidr_key(text), f"reserved:world-ipv{6 if ':' in text else 4}") for text in PREFIXES}
    before, after = SelectorCache({}), SelectorCache({})
    kept = after.acquire(Selector.of([requirement]))
    for number, text in enumerate(PREFIXES, start=1 << 24):
        before.add(number, labels[text])
        after.add(number, labels[text])
    fresh = before.acquire(Selector.of([requirement]))
    assert {PREFIXES[n - (1 << 24)] for n in fresh.members} == who
    assert fresh.members == kept.members
    assert {text for text in PREFIXES if Selector.of([requirement]).matches(label_map(labels[text]))} == who


PREFIXES = ("10.0.0.0/8", "10.1.0.0/16", "fd00::/8")


_prefixes = st.sampled_from(
    ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "::/0", "fd00::/8"]
)


@given(_prefixes, st.sets(_prefixes), _prefixes)
def test_a_chooser_says_what_its_selector_says(cidr: str, excepts: set[str], own: str) -> None:
    family = f"reserved:world-ipv{6 if ':' in own else 4}"
    chosen = Selector.of([*within(cidr, excepts).requirements, exists("any:app")])
    for selector in (within(cidr, excepts), chosen, Selector()):
        for labels in ([cidr_key(own), family], [family], ["k8s:app=x"], [cidr_key(own), family, "cidrgroup:app"]):
            assert Chooser(selector).matches(label_map(labels)) == selector.matches(label_map(labels))


def test_ten_thousand_exceptions_are_not_gone_through_for_each_identity() -> None:
    excepts = [f"10.{i >> 8}.{i & 255}.0/24" for i in range(10_000)]
    cache = SelectorCache({})
    chosen = cache.acquire(within("10.0.0.0/8", excepts))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        for number, text in enumerate([*excepts[:100], "10.255.0.0/24"], start=1 << 24):
            cache.add(number, (cidr_key(text), "reserved:world-ipv4"))
    finally:
        sys.setprofile(None)
    assert set(chosen.members) == {(1 << 24) + 100}
    assert calls < 100_000
