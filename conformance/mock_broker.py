"""The broker of a pod: librdkafka's mock cluster, by its C interface. Runs alone inside the pod's network namespace.

    python -m conformance.mock_broker --port 9092 --topic empire-announce --topic deathstar-plans

It knows itself as 127.0.0.1 and a port of its choice, and tells clients so; a relay makes it heard at --port of every
address. Prints one line, `ready PORT`, and dies with its parent. It has the APIs of producers (idempotent and
transactional ones too) and of consumers (with either group protocol), but none to administer topics.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import confluent_kafka

from conformance.relay import Relay

PR_SET_PDEATHSIG = 1
PRODUCER = 0  # rd_kafka_type_t
PARTITIONS, REPLICAS, BROKERS = 1, 1, 1
REBALANCE_DELAY_MS = 1  # until a group that is new begins: 3 s otherwise
COMPLAINT_MAX = 512  # bytes


class MockCluster:
    """A cluster that lives as long as this process."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._library = library = ctypes.CDLL(str(_bundled()))
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
            getattr(library, name).restype = ctypes.c_void_p
        library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        complaint = ctypes.create_string_buffer(COMPLAINT_MAX)
        conf = ctypes.c_void_p(library.rd_kafka_conf_new())
        library.rd_kafka_conf_set(conf, b"log_level", b"0", complaint, COMPLAINT_MAX)
        owner = ctypes.c_void_p(library.rd_kafka_new(PRODUCER, conf, complaint, COMPLAINT_MAX))
        if not owner:
            raise RuntimeError(complaint.value.decode())
        cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(owner, BROKERS))
        if not cluster:
            raise RuntimeError("the mock cluster does not start")
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, REBALANCE_DELAY_MS)
        for topic in topics:
            if code := library.rd_kafka_mock_topic_create(cluster, topic.encode(), PARTITIONS, REPLICAS):
                raise RuntimeError(f"topic {topic} is refused: error {code}")
        host, _, port = library.rd_kafka_mock_cluster_bootstraps(cluster).decode().rpartition(":")
        self.address = (host, int(port))


def _bundled() -> Path:
    """The librdkafka that confluent-kafka brings along."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    return next(folder.glob("librdkafka-*.so*"))


async def serve(port: int, cluster: MockCluster) -> None:
    """Listen on every address of the namespace, IPv4 and IPv6, until the end."""
    servers = await Relay(cluster.address).listen([("0.0.0.0", port), ("::", port)])
    print(f"ready {cluster.address[1]}", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topic", action="append", default=[])
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.port, MockCluster(arguments.topic)))
    except (OSError, RuntimeError) as error:
        sys.exit(f"broker: {error}")


if __name__ == "__main__":
    main()
