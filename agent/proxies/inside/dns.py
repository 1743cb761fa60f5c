"""The DNS proxy, in the terms of the process around it."""

from __future__ import annotations

from collections.abc import Callable

from agent.proxies.inside.dns_reports import DnsReports
from l7proxy.dns.configuration import Configuration, Options
from l7proxy.dns.proxy import DnsProxy, Settings
from xds.client import Told


class DnsJudging:
    """Satisfies Judging."""

    def __init__(self, shared: bool) -> None:
        self._wake: Callable[[bool], None] = lambda urgent: None
        self.source = DnsReports(lambda urgent: self._wake(urgent))
        self._proxy = DnsProxy(self.source, self.source, Settings(shared=shared))
        self.source.counted = lambda: self._proxy.counted

    def start(self, wake: Callable[[bool], None]) -> None:
        """Serve; refuse everything until told."""
        self._wake = wake
        self._proxy.start()

    def apply(self, told: Told) -> None:
        """Judge by this from now on. ValueError where it cannot be: nothing has changed then."""
        node = told.dns.settings
        options = Options(node.rejection, node.query_timeout, node.hold_limit, node.release_late, node.targets)
        self._proxy.apply(Configuration(told.listening, options, told.dns.selectors))
        self.source.select(told.dns.selectors, targets=node.targets, shares=not node.by_endpoint)

    def stop(self) -> None:
        """Close everything."""
        self._proxy.stop()
