"""Writes the records of one connection. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from l7proxy.kafka.heads import Head
from l7proxy.kafka.judge import Origins, Scope
from l7proxy.kafka.knowledge import Knowledge
from l7proxy.kafka.records import AccessRecord, Connection, Reason, RecordSink
from l7proxy.kafka.subjects import Subject
from l7proxy.kafka.verdicts import Panel

_NO_TOPIC = (Subject(""),)


class Witness:
    """Of one connection."""

    def __init__(self, connection: Connection, sink: RecordSink, known: Knowledge) -> None:
        self._connection = connection
        self._sink = sink
        self._known = known

    def closed(self, reason: Reason) -> None:
        """The connection is given up, whatever was asked."""
        self._sink.seen(AccessRecord(self._connection, reason=reason))

    def allowed(self, head: Head, topics: Sequence[Subject], origins: Origins) -> None:
        """All of a request, whatever topics it names."""
        for topic in topics or _NO_TOPIC:
            self._see(head, topic, origins=origins)

    def refused(self, head: Head, topics: Sequence[Subject], reason: Reason, code: int = 0) -> None:
        """All of a request, whatever topics it names."""
        for topic in topics or _NO_TOPIC:
            self._see(head, topic, code=code, reason=reason)

    def judged(
        self, head: Head, topics: Sequence[Subject], scope: Scope, panel: Panel, *, is_silent: bool = False
    ) -> None:
        """A request by its topics: those that are allowed are forwarded, the others refused. `is_silent`: there is no
        answer."""
        every = _union(scope)
        for topic in topics or _NO_TOPIC:
            reason = panel.reason(topic) if topic != _NO_TOPIC[0] else None
            if reason is None:
                self._see(head, topic, origins=scope.topics.get(self._known.name(topic) or "", every))
            else:
                self._see(head, topic, code=0 if is_silent else panel.code(topic), reason=reason)

    def undone(self, head: Head, topics: Sequence[Subject], panel: Panel, *, is_silent: bool) -> None:
        """A request that is refused as a whole because of some topics: of the others nothing was seen, for they were
        neither forwarded nor refused. `is_silent`: there is no answer."""
        for topic in topics:
            if (reason := panel.reason(topic)) is not None:
                self._see(head, topic, code=0 if is_silent else panel.code(topic), reason=reason)

    def _see(
        self, head: Head, topic: Subject, *, code: int = 0, reason: Reason | None = None, origins: Origins = ()
    ) -> None:
        name = self._known.title(topic)
        self._sink.seen(
            AccessRecord(
                self._connection,
                head.key,
                head.version,
                head.correlation,
                head.client_id,
                name,
                int(code),
                reason,
                origins,
            )
        )


def _union(scope: Scope) -> Origins:
    """Whose rules allow a request that names no topic, or asks for all."""
    return tuple(sorted({origin for origins in scope.topics.values() for origin in origins}))
