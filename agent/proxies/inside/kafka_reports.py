"""What the Kafka proxy tells the agent: a record for each topic of a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from agent.proxies.inside.telling import Telling
from l7proxy.kafka.records import AccessRecord, Reason
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

# Why something went wrong that policy allowed. Whatever else there is against a request is a denial.
_ERRORS: Final = frozenset((Reason.UNREACHABLE, Reason.BAD_ANSWER, Reason.ANSWER_TOO_LARGE))
_NO_RULE: Final = frozenset((Reason.API_DENIED, Reason.TOPIC_DENIED))  # which came nearest, the agent finds out


class KafkaReports(Telling):
    """Satisfies l7proxy.kafka's RecordSink, and the stream's Source."""

    def __init__(self, wake: Callable[[bool], None]) -> None:
        super().__init__(wake, pb.KafkaAccesses)

    def seen(self, record: AccessRecord) -> None:
        """A topic of a request was judged, or a connection refused."""
        page, connection, reason = self._page, record.connection, record.reason
        key = (connection.slot, record.origins)
        place = page.places.get(key) or page.place(key, connection.slot, record.origins)
        access = pb.KafkaAccess(
            slot=place.slot,
            client=connection.client,
            client_port=connection.client_port,
            server=connection.server,
            server_port=connection.server_port,
            api_key=record.api_key,
            api_version=record.api_version,
            correlation_id=record.correlation_id,
            topic=record.topic,
            error_code=record.error_code,
            rule=place.rule,
            client_id=record.client_id,
        )
        if reason is not None:
            access.reason = "" if reason in _NO_RULE else reason
            access.verdict = pb.ERROR if reason in _ERRORS else pb.DROPPED
        told = access.SerializeToString()
        if reason is None:
            place.count(told)
        elif reason not in _ERRORS:
            page.denials.append(told)
        self._put(told)

    def batch(self) -> pb.Batch | None:
        """The next batch; None if nothing waits."""
        return self._with_counters(pb.Batch(kafka=self._packed()))

    def answered(self, in_force: Sequence[int], cannot_be: Sequence[int]) -> None:
        """What has become of lessons: there are none."""

    def back(self) -> None:
        """An agent listens."""
