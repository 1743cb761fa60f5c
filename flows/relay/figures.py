"""How the relay fares, as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.relay.peers import Peers
from flows.relay.pool import Pool


class RelayFigures(Collector):
    """`calls` gives how many clients' calls are open."""

    def __init__(self, peers: Peers, pool: Pool, calls: Callable[[], int]) -> None:
        self._peers, self._pool, self._calls = peers, pool, calls

    def collect(self) -> Iterator[Metric]:
        """Read in the thread of a page: single values, no halves of changes to be seen."""
        states = GaugeMetricFamily(
            "hubble_relay_pool_peer_connection_status", "Connections to nodes by state", labels=["status"]
        )
        for state, count in sorted(self._pool.states().items()):
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily(
            "deflector_relay_peer_service_connected", "1 if nodes are told of", value=self._peers.is_connected
        )
        yield GaugeMetricFamily("deflector_relay_peers", "Nodes that are told of", value=len(self._peers.known))
        yield GaugeMetricFamily("deflector_relay_calls", "Open calls of clients", value=self._calls())
