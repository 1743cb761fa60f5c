"""Objects that are in force, by kind, and the immutable view of them. Pure; one writer.

A view is made anew only for a kind that has changed, and shares everything with the one before it that did not. A pod
may be known twice: by itself, and by what was published of it; then it is the pod itself that counts.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from policies.objects import ENDPOINT_KIND, POLICY_KINDS, Object, ObjectKey, Pod, PodKey
from policies.world import World

POLICIES: Final = "policies"  # the view of every kind of them
SORT_ANEW: Final = 16  # with more additions than these, sorting beats inserting
_POD: Final = "Pod"
_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class _View:
    """One mapping of the world: what is in it, and the immutable form of that, made when somebody asks."""

    __slots__ = ("_added", "_shown", "objects")

    def __init__(self) -> None:
        self.objects: dict[Any, Object] = {}  # sorted, but for what was added since it was shown
        self._shown: Mapping[Any, Any] | None = None
        self._added: dict[Any, None] = {}

    def put(self, key: Any, obj: Object | None) -> bool:
        """Whether that changes anything."""
        old = self.objects.get(key)
        if obj is old or obj == old:
            return False
        if self._shown is not None:  # whoever has it keeps it as it is
            self.objects, self._shown = self.objects.copy(), None
        if obj is None:
            del self.objects[key]
            self._added.pop(key, None)
        else:
            if old is None:
                self._added[key] = None
            self.objects[key] = obj
        return True

    def show(self) -> Mapping[Any, Any]:
        """Sorted by key; the same mapping until something changes."""
        if self._shown is None:
            if len(self._added) > SORT_ANEW:
                self.objects = {key: self.objects[key] for key in sorted(self.objects)}
            elif self._added:
                keys = list(self.objects)
                del keys[-len(self._added) :]  # the others stand at the end, in the order of their coming
                for key in self._added:
                    insort(keys, key)
                self.objects = dict(zip(keys, map(self.objects.__getitem__, keys), strict=True))
            self._added = {}
            self._shown = MappingProxyType(self.objects)
        return self._shown


class Holdings:
    """Every object by its key."""

    def __init__(self) -> None:
        self._views: dict[str, _View] = {}
        self._behind: dict[PodKey, Object] = {}  # what is published of pods that are known themselves

    def put(self, key: ObjectKey, obj: Object | None) -> bool:
        """This is the object of that key now; None: there is none. Whether the world is another one by that."""
        if key.kind in POLICY_KINDS:
            return self._view(POLICIES).put(key, obj)
        if key.kind in (_POD, ENDPOINT_KIND):
            return self._put_pod(key, obj)
        return self._view(key.kind).put(PodKey(key.namespace, key.name) if key.namespace else key.name, obj)

    def world(self) -> World:
        """The immutable view. Unchanged kinds are the same mappings as before."""
        return World(
            namespaces=self._show("Namespace"),
            pods=self._show(_POD),
            services=self._show("Service"),
            slices=self._show("EndpointSlice"),
            policies=self._show(POLICIES),
            cidr_groups=self._show("CiliumCIDRGroup"),
            nodes=self._show("Node"),
            secrets=self._show("Secret"),
            identities=self._show("CiliumIdentity"),
        )

    def _put_pod(self, key: ObjectKey, obj: Object | None) -> bool:
        pods, pod = self._view(_POD), PodKey(key.namespace, key.name)
        now = pods.objects.get(pod)
        if key.kind == _POD:
            if obj is not None and now is not None and _is_published(now):
                self._behind[pod] = now
            return pods.put(pod, obj if obj is not None else self._behind.pop(pod, None))
        if now is None or _is_published(now):
            return pods.put(pod, obj)
        if obj is None:
            self._behind.pop(pod, None)
        else:
            self._behind[pod] = obj
        return False

    def _view(self, name: str) -> _View:
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = _View()
        return view

    def _show(self, name: str) -> Mapping[Any, Any]:
        view = self._views.get(name)
        return view.show() if view is not None else _NOTHING


def _is_published(obj: Object | None) -> bool:
    return isinstance(obj, Pod) and obj.published is not None
