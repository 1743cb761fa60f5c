"""Which labels make an identity, in the words of Cilium's agent."""

from __future__ import annotations

import pytest

from policies.label_filter import LabelFilter
from policies.labels import identity_labels, is_identity_relevant

KEYS = ("app", "app.kubernetes.io/name", "pod-template-hash", "topology.kubernetes.io/zone", "io.kubernetes.x", "role")


def kept(words: str) -> set[str]:
    labels = LabelFilter(words)
    return {key for key in KEYS if labels.keeps(key)}


def test_without_words_the_defaults_hold() -> None:
    assert kept("") == {key for key in KEYS if is_identity_relevant(key)} | {"topology.kubernetes.io/zone"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("k8s:!role", {"app", "app.kubernetes.io/name", "topology.kubernetes.io/zone"}),
        ("k8s:role", {"app.kubernetes.io/name", "role"}),  # whoever includes leaves out the rest, but for the defaults
        ("role, app$", {"app", "app.kubernetes.io/name", "role"}),
        (r"k8s:io\.kubernetes\.x", {"app.kubernetes.io/name", "io.kubernetes.x"}),  # longer than what leaves it out
        ("container:role", {"app", "app.kubernetes.io/name", "role", "topology.kubernetes.io/zone"}),
    ],
)
def test_the_longer_match_wins(words: str, expected: set[str]) -> None:
    assert kept(words) == expected


def test_nobody_leaves_out_the_namespace_or_brings_in_a_false_one() -> None:
    pod = {"app": "a", "role": "b", "io.cilium.k8s.policy.cluster": "other"}
    labels = identity_labels(
        pod,
        namespace="default",
        namespace_labels={"team": "x"},
        keeps=LabelFilter(r"!io\.kubernetes\.pod\.namespace !io\.cilium k8s:app$").keeps,
    )
    assert labels == (
        "k8s:app=a",
        "k8s:io.cilium.k8s.namespace.labels.team=x",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.kubernetes.pod.namespace=default",
    )


@pytest.mark.parametrize(("words", "complaint"), [("k8s:!", "has no pattern"), ("k8s:(", "is no regular expression")])
def test_what_cannot_be_is_refused(words: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        LabelFilter(words)
