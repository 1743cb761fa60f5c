"""May this request be made? Pure: the rules of one slot, compiled, and one scope per kind of request.

Facts, policy-language.md section 5: a rule fits if key, version and client id do. A fitting rule without a topic allows
the request; so does any fitting rule, if requests of the API name no topics. Otherwise each topic that is named must
be allowed by the topic of some fitting rule. Beyond Cilium's parsers, this holds for every API that names topics, and
it is told topic by topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from l7proxy.kafka import schema
from l7proxy.kafka.knowledge import Hearsay
from l7proxy.kafka.records import Reason
from l7proxy.kafka.subjects import is_of_topics
from policies.ir import KafkaRule, Slot, SlotState
from policies.types import Origin

SCOPES: Final = 4096  # kinds of requests whose scope is remembered

Origins = tuple[Origin, ...]


class Scope(NamedTuple):
    """What requests of one kind may be about. `everything`: whoever allows all of it (None: nobody does); `topics`: who
    allows each topic. Neither: `reason`."""

    everything: Origins | None = None
    topics: Mapping[str, Origins] = {}
    reason: Reason | None = None


class Judge:
    """The rules of one slot. Without a slot, everything is refused."""

    def __init__(self, slot: Slot | None, reason: Reason = Reason.NO_CONFIGURATION) -> None:
        self._refused = Scope(reason=reason)
        self._rules: tuple[KafkaRule, ...] = ()
        self._open: Origins | None = None  # everything is allowed, by these
        self._scopes: dict[tuple[int, int, str], Scope] = {}
        self._clients: frozenset[str] = frozenset()  # whom some rule names
        self.is_retired = slot is None or slot.state is SlotState.RETIRED
        if slot is None:
            return
        rules = slot.rule_set
        self._refused = Scope(reason=Reason.RETIRED if self.is_retired else Reason.API_DENIED)
        if slot.state is SlotState.DRAINED or rules.wildcard:
            self._open = rules.wildcard
        elif not self.is_retired:
            self._rules = rules.kafka
        self._clients = frozenset(rule.client_id for rule in self._rules if rule.client_id)

    @property
    def is_open(self) -> bool:
        """Whether everything is allowed, also what nobody can read."""
        return self._open is not None

    def scope(self, key: int, version: int, client_id: str) -> Scope:
        """What a request of this kind may be about."""
        if self._open is not None:
            return Scope(self._open)
        kind = (key, version, client_id if client_id in self._clients else "")
        found = self._scopes.get(kind)
        if found is None:
            if len(self._scopes) >= SCOPES:
                self._scopes.clear()
            found = self._scopes[kind] = self._scope(key, version, client_id)
        return found

    def _scope(self, key: int, version: int, client_id: str) -> Scope:
        named_only = not schema.is_known(key, version) or is_of_topics(key)
        topics: dict[str, Origins] = {}
        for rule in self._rules:
            if rule.api_keys and key not in rule.api_keys:
                continue
            if rule.api_version not in (None, version) or rule.client_id not in ("", client_id):
                continue
            if not rule.topic or not named_only:
                return Scope(rule.origins)
            topics[rule.topic] = tuple(sorted({*topics.get(rule.topic, ()), *rule.origins}))
        if not topics:
            return self._refused
        if not schema.is_known(key, version):
            return Scope(reason=Reason.API_UNKNOWN)
        return Scope(None, topics)


class Post:
    """Who judges what arrives at a slot: an edit of its rules appoints another judge."""

    def __init__(self, judge: Judge, hide_topics: bool = True) -> None:
        self.judge = judge
        self.hide_topics = hide_topics
        self.hearsay = Hearsay()
