"""The Kafka proxy, in the terms of the process around it."""

from __future__ import annotations

from collections.abc import Callable

from agent.proxies.inside.kafka_reports import KafkaReports
from l7proxy.kafka.configuration import Configuration, Options
from l7proxy.kafka.proxy import KafkaProxy
from xds.client import Told


class KafkaJudging:
    """Satisfies Judging."""

    def __init__(self) -> None:
        self._wake: Callable[[bool], None] = lambda urgent: None
        self.source = KafkaReports(lambda urgent: self._wake(urgent))
        self._proxy = KafkaProxy(self.source)
        self.source.counted = lambda: self._proxy.counted

    def start(self, wake: Callable[[bool], None]) -> None:
        """Serve; refuse everything until told."""
        self._wake = wake
        self._proxy.start()

    def apply(self, told: Told) -> None:
        """Judge by this from now on. ValueError where it cannot be: nothing has changed then."""
        self._proxy.apply(Configuration(told.listening, Options(told.kafka.hide_topics)))

    def stop(self) -> None:
        """Close everything."""
        self._proxy.stop()
