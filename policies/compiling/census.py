"""Which pods are in the world and which identity each has, followed from one view to the next. Pure.

Only pods whose object, or whose namespace's labels, changed are looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policies.compiling.changes import changed_keys
from policies.compiling.identity import IdentitiesExhausted, IdentityAllocator
from policies.compiling.selections import SelectorCache
from policies.errors import PolicyError, Reason
from policies.labels import identity_labels
from policies.objects import Identity, Namespace, Pod, PodKey
from policies.types import IDENTITY_UNMANAGED
from policies.world import World

Labels = tuple[str, ...]


class Census:
    """Pod -> identity for every pod that is not over and not on the host's network."""

    def __init__(
        self,
        identities: IdentityAllocator,
        selectors: SelectorCache,
        cluster: str,
        keeps: Callable[[str], bool] | None = None,
    ) -> None:
        """`keeps`: which labels of pods make their identity, if not as by default (policies.label_filter)."""
        self.identity: dict[PodKey, int] = {}
        self._identities = identities
        self._selectors = selectors
        self._cluster = cluster
        self._keeps = keeps
        self._pods: Mapping[PodKey, Pod] = {}
        self._namespaces: Mapping[str, Namespace] = {}
        self._labels: dict[PodKey, Labels] = {}
        self._users: dict[Labels, set[PodKey]] = {}
        self._agreed: Mapping[str, Identity] = {}
        self._numbered: dict[int, set[PodKey]] = {}  # pods of which only the number was published
        self._waiting: set[PodKey] = set()  # for a number
        self._is_first = True

    @property
    def errors(self) -> list[PolicyError]:
        """Pods without an identity."""
        message = "its addresses are unmanaged until another label set is gone"
        return [PolicyError("Pod", *key, "metadata.labels", Reason.NO_IDENTITY, message) for key in self._waiting]

    def take(self, world: World) -> list[PodKey]:
        """Follow the world; the pods that were looked at again, sorted, so that equal worlds give equal numbers."""
        is_same = world.pods is self._pods and world.namespaces is self._namespaces
        if is_same and world.identities is self._agreed and not self._is_first:
            return []
        touched = sorted({*self._touched(world), *self._renumbered(world)})
        before = {labels for key in touched if (labels := self._labels.get(key)) is not None}
        after = {key: labels for key in touched if (labels := self._labels_of(world, key)) is not None}
        for key in touched:
            self._forget(key)
            if (number := _only_number(world.pods.get(key))) is not None:
                self._numbered.setdefault(number, set()).add(key)
        for key, labels in after.items():
            self._labels[key] = labels
            self._users.setdefault(labels, set()).add(key)
        self._leave(before - set(after.values()))
        self._enter(after)
        for key in touched:
            if (pod := world.pods.get(key)) is not None and _has_place(pod) and key not in after:
                self.identity[key] = IDENTITY_UNMANAGED
        self._pods, self._namespaces, self._agreed = world.pods, world.namespaces, world.identities
        return touched

    def _forget(self, key: PodKey) -> None:
        if (labels := self._labels.pop(key, None)) is not None:
            self._users[labels].discard(key)
        self.identity.pop(key, None)
        self._waiting.discard(key)
        if (number := _only_number(self._pods.get(key))) is not None:
            self._numbered[number].discard(key)

    def _renumbered(self, world: World) -> set[PodKey]:
        """Pods whose labels have another number by what was agreed on, or whose number has other labels."""
        if world.identities is self._agreed:
            return set()
        moved, numbers = self._identities.agree(world.identities)
        for labels in sorted(moved):
            if (number := self._identities.number(labels)) is not None:
                self._identities.release(number)
                self._selectors.remove(number)
        found = {key for labels in moved for key in self._users.get(labels, ())}
        for number in numbers:
            found |= self._numbered.get(number, set())
        return found

    def _touched(self, world: World) -> list[PodKey]:
        moved = changed_keys(self._namespaces, world.namespaces)
        changed = changed_keys(self._pods, world.pods) | self._waiting
        if moved:
            changed |= {key for pods in (self._pods, world.pods) for key in pods if key.namespace in moved}
        return sorted(changed)

    def _labels_of(self, world: World, key: PodKey) -> Labels | None:
        pod = world.pods.get(key)
        if pod is None or not _has_place(pod) or not pod.has_known_labels:
            return None
        if pod.published is not None:  # by number alone it is whoever the number is agreed to stand for
            return pod.published.labels or self._identities.agreed_labels(pod.published.number)
        namespace = world.namespaces.get(key.namespace)
        return identity_labels(
            pod.labels,
            namespace=key.namespace,
            namespace_labels=namespace.labels if namespace is not None else {},
            service_account=pod.service_account,
            cluster=self._cluster,
            keeps=self._keeps,
        )

    def _enter(self, pods: Mapping[PodKey, Labels]) -> None:
        numbers: dict[Labels, int] = {}
        for labels in sorted(set(pods.values())):
            try:
                numbers[labels] = self._identities.allocate(labels)
                self._selectors.add(numbers[labels], labels)
            except IdentitiesExhausted:
                numbers[labels] = IDENTITY_UNMANAGED
        for key, labels in pods.items():
            self.identity[key] = numbers[labels]
            if numbers[labels] == IDENTITY_UNMANAGED:
                self._waiting.add(key)

    def _leave(self, candidates: set[Labels]) -> None:
        gone = {labels for labels in candidates if not self._users[labels]}
        for labels in gone:
            del self._users[labels]
        numbers = {number for labels in gone if (number := self._identities.number(labels)) is not None}
        if self._is_first:  # what an earlier agent knew and this world does not
            numbers |= {n for n, labels in self._identities.in_use().items() if labels not in self._users}
            self._is_first = False
        for number in sorted(numbers):
            self._identities.release(number)
            self._selectors.remove(number)


def _has_place(pod: Pod) -> bool:
    """Whether it has addresses of its own."""
    return not pod.is_over and not pod.host_network


def _only_number(pod: Pod | None) -> int | None:
    """The identity that was published of it, where that is all that was."""
    return pod.published.number if pod is not None and pod.published is not None and not pod.published.labels else None
