"""A follower of the Hubble API, as `hubble observe -f` is: every flow with the time at which it arrived here."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from flow import flow_pb2
from observer import observer_pb2, observer_pb2_grpc

from benchmarks.errors import NotMeasured

ARRIVAL_TIMEOUT = 10.0  # seconds to wait for one flow


class Follower:
    """Made by `follower()`. A thread reads; `flows` and `lost` count all that came."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.flows = 0
        self.lost = 0
        self._arrived: queue.SimpleQueue[tuple[float, flow_pb2.Flow] | None] = queue.SimpleQueue()
        stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
        self._call = stub.GetFlows(observer_pb2.GetFlowsRequest(follow=True))
        self._keep = False
        self._thread = threading.Thread(target=self._read, name="follower", daemon=True)
        self._thread.start()

    def keep(self) -> None:
        """From now on flows are kept for `next`; before, they are only counted."""
        self._keep = True

    def next(self) -> tuple[float, flow_pb2.Flow]:
        """The next flow and when it came (time.monotonic). Raises NotMeasured if none comes."""
        try:
            found = self._arrived.get(timeout=ARRIVAL_TIMEOUT)
        except queue.Empty:
            raise NotMeasured(f"no flow reached the follower within {ARRIVAL_TIMEOUT:.0f} s") from None
        if found is None:
            raise NotMeasured("the Hubble API ended the stream of flows")
        return found

    def close(self) -> None:
        self._call.cancel()
        self._thread.join(ARRIVAL_TIMEOUT)

    def _read(self) -> None:
        try:
            for response in self._call:
                now = time.monotonic()
                self.lost += response.lost_events.num_events_lost
                if response.HasField("flow"):
                    self.flows += 1
                    if self._keep:
                        self._arrived.put((now, response.flow))
        except grpc.RpcError:
            pass  # cancelled by us, or the agent has gone: whoever waits is told below
        self._arrived.put(None)


@contextmanager
def follower(socket: Path) -> Iterator[Follower]:
    """Follow the node behind this socket for the length of the block."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        made = Follower(channel)
        try:
            yield made
        finally:
            made.close()
