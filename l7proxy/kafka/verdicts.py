"""What becomes of a request: forwarded, forwarded in part, refused, or put off until a topic id is known. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from l7proxy.kafka.apis import FETCH, METADATA, PRODUCE, SHARE_FETCH, Code, conduct
from l7proxy.kafka.judge import Scope
from l7proxy.kafka.knowledge import Knowledge
from l7proxy.kafka.records import Reason
from l7proxy.kafka.subjects import Subject

_SESSIONS_SINCE: Final = 7  # version of Fetch
_NO_ID: Final = bytes(16)
REASONS: Final = {
    Code.TOPIC_AUTHORIZATION_FAILED: Reason.TOPIC_DENIED,
    Code.UNKNOWN_TOPIC_ID: Reason.TOPIC_UNKNOWN,
}


class Outcome(Enum):
    """What is to be done with the request."""

    FORWARD = "forward"
    SPLIT = "forward the allowed topics, refuse the others in the answer"
    REFUSE = "refuse it as a whole"
    RESTART = "let the client open its session anew"


class Session(NamedTuple):
    """Which session a request to fetch is about. `number`: what it is known by; `epoch`: 0 opens it, -1 ends it."""

    number: Hashable
    epoch: int

    @property
    def is_incremental(self) -> bool:
        """Whether the request relies on topics that were named before."""
        return self.epoch > 0


class Asked(NamedTuple):
    """A request and the topics that it names."""

    key: int
    version: int
    subjects: Sequence[Subject]
    session: Session | None = None


def has_session(key: int, version: int) -> bool:
    """Whether such requests may rely on what was asked before."""
    return key == SHARE_FETCH or (key == FETCH and version >= _SESSIONS_SINCE)


class Panel:
    """Judges the topics of one request by the scope of its kind, and by what the connection has taught."""

    def __init__(self, key: int, scope: Scope, known: Knowledge) -> None:
        self._conduct = conduct(key)
        self._key = key
        self._topics = scope.topics
        self._known = known

    def unknown(self, subjects: Sequence[Subject]) -> set[bytes]:
        """Ids of topics that nobody knows the name of."""
        known = self._known
        return {s.id for s in subjects if s.id is not None and s.id != _NO_ID and known.name(s) is None}

    def code(self, about: Subject) -> Code:
        """What a topic is refused with; NONE: it is allowed."""
        if about.all and self._conduct.hides:
            return Code.NONE
        name = self._known.name(about)
        if name is None:
            return Code.TOPIC_AUTHORIZATION_FAILED if about.id is None else Code.UNKNOWN_TOPIC_ID
        return Code.NONE if name in self._topics else Code.TOPIC_AUTHORIZATION_FAILED

    def is_allowed(self, about: Subject) -> bool:
        """Whether a topic is allowed."""
        return self.code(about) is Code.NONE

    def reason(self, about: Subject) -> Reason | None:
        """Why it is refused, if it is."""
        code = self.code(about)
        if code is Code.NONE:
            return None
        is_named = about.name is not None or about.id is not None
        return REASONS[code] if is_named else Reason.NOT_BY_TOPIC

    def code_as_whole(self, about: Subject) -> Code:
        """The same where one refused topic refuses the request: the others were not attempted."""
        code = self.code(about)
        if code is not Code.NONE:
            return code
        # of a producer, which tries those again that may succeed
        return Code.NOT_LEADER_OR_FOLLOWER if self._key == PRODUCE else Code.OPERATION_NOT_ATTEMPTED

    def decide(self, asked: Asked) -> Outcome:
        """Judge a request all of whose topics are known."""
        refused = [one for one in asked.subjects if not self.is_allowed(one)]
        if asked.session is not None and asked.session.is_incremental:
            held = self._known.session(asked.session.number)
            if refused or held is None or not all(map(self.is_allowed, held)):
                return Outcome.RESTART
        if not refused:
            return Outcome.FORWARD
        if not self._conduct.split:
            return Outcome.REFUSE
        if len(refused) < len(asked.subjects) or (asked.key == METADATA and asked.version > 0):
            return Outcome.SPLIT  # Metadata: who asks for no topic (not so in version 0) still hears of the brokers
        return Outcome.REFUSE
