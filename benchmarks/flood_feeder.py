"""Sends access-log messages as a proxy under load does: at a pace, over one stream, whether or not they are taken.

    python -m benchmarks.flood_feeder SOCKET FLOWS_PER_SECOND SECONDS

Prints one JSON object when all have been sent: entries, denials, and the seconds that it took.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator

import grpc
from seen import seen_pb2

from benchmarks.intake import Town
from benchmarks.traffic import BATCH, messages
from flows.accesslog.decode import DOWNSTREAM_END, is_denied
from flows.accesslog.server import SERVICE
from flows.intake import Intake
from flows.ring import Ring
from flows.uuids import uuids

MESSAGES = 200  # different ones, sent again and again
DENIALS = 0.02  # share of exchanges: of both flows of a denied one the request is the denial, so 1 % of flows


class Feed:
    """What is sent, when, and how much it was."""

    def __init__(self, flows_per_second: float, seconds: float) -> None:
        self._wire = messages(random.Random(3), MESSAGES, DENIALS)
        self._per_message = _flows(self._wire) / MESSAGES
        self._every, self._count = (
            self._per_message / flows_per_second,
            round(seconds * flows_per_second / self._per_message),
        )
        self._denials = [sum(map(is_denied, _ended(one))) for one in self._wire]
        self.denials = self.seconds = 0.0

    def __iter__(self) -> Iterator[bytes]:
        start = time.monotonic()
        for number in range(self._count):
            time.sleep(max(0.0, start + number * self._every - time.monotonic()))
            self.denials += self._denials[number % MESSAGES]
            yield self._wire[number % MESSAGES]
        self.seconds = time.monotonic() - start

    def document(self) -> dict[str, float]:
        return {"entries": self._count * BATCH, "denials": self.denials, "seconds": self.seconds}


def _flows(wire: list[bytes]) -> int:
    """How many flows these messages make."""
    town = Town()
    made = Intake(Ring(), lambda: town, version="0.0.0", now_ns=time.time_ns, new_uuid=uuids().__next__)
    made.reading = True
    for message in wire:
        made.access_log(message)
    return made.ring.flows_seen


def _ended(message: bytes) -> list[seen_pb2.Entry]:
    entries = seen_pb2.Log.FromString(message).http_logs.log_entry
    return [entry for entry in entries if entry.common_properties.access_log_type == DOWNSTREAM_END]


def main(socket: str, flows_per_second: float, seconds: float) -> None:
    feed = Feed(flows_per_second, seconds)
    with grpc.insecure_channel(f"unix://{socket}", options=[("grpc.max_send_message_length", -1)]) as channel:
        grpc.channel_ready_future(channel).result(10)
        call = channel.stream_unary(f"/{SERVICE}/StreamAccessLogs", request_serializer=None, response_deserializer=None)
        call(iter(feed))
    print(json.dumps(feed.document()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))
