"""A follower of flows that takes them as fast as Go's clients do, or not at all: counts, and is silent to the end.

    python -m benchmarks.flood_follower SOCKET all|denials|stalled

`stalled` asks for everything and never reads. SIGTERM ends it; then it prints one JSON object: flows, and how many it
was told are lost. It speaks HTTP/2 itself: a follower that took more CPU than the agent would be what is measured.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from types import FrameType

from flow import flow_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event
from h2.settings import SettingCodes, Settings
from observer import observer_pb2

WINDOW = 1 << 20  # bytes of answers that may be on their way
READ_SIZE = 1 << 18
PREFIX = 5  # bytes before each message of gRPC: whether it is compressed, and its length
FLOW = b"\x0a"  # how a response with a flow begins: with field 1
REQUESTS = {
    "all": observer_pb2.GetFlowsRequest(follow=True),
    "denials": observer_pb2.GetFlowsRequest(follow=True, whitelist=[flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED])]),
    "stalled": observer_pb2.GetFlowsRequest(follow=True),
}


class Counter:
    """Takes the bytes of an answer; counts the messages in them."""

    def __init__(self) -> None:
        self.flows = self.lost = 0
        self._rest = b""

    def take(self, content: bytes) -> None:
        whole, at = self._rest + content, 0
        while len(whole) - at >= PREFIX:
            start = at + PREFIX
            end = start + int.from_bytes(whole[at + 1 : start])
            if end > len(whole):
                break
            if whole[start : start + 1] == FLOW:
                self.flows += 1
            else:
                told = observer_pb2.GetFlowsResponse.FromString(whole[start:end])
                self.lost += told.lost_events.num_events_lost
            at = end
        self._rest = whole[at:]


class Asked:
    """A connection on which GetFlows was called."""

    def __init__(self, path: str, request: observer_pb2.GetFlowsRequest) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.local_settings = Settings(initial_values={SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW)
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "localhost",
            ":path": "/observer.Observer/GetFlows",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        self._h2.send_headers(1, list(headers.items()))
        wire = request.SerializeToString()
        self._h2.send_data(1, b"\0" + len(wire).to_bytes(PREFIX - 1) + wire, end_stream=True)
        self._socket.sendall(self._h2.data_to_send())

    def read(self, counter: Counter) -> bool:
        """Take what is there; False when the server has gone."""
        content = self._socket.recv(READ_SIZE)
        for event in self._h2.receive_data(content) if content else ():
            self._obey(event, counter)
        self._socket.sendall(self._h2.data_to_send())
        return bool(content)

    def _obey(self, event: Event, counter: Counter) -> None:
        if isinstance(event, DataReceived):
            counter.take(event.data)
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


class _Enough(Exception):
    """SIGTERM came."""


def _enough(_number: int, _frame: FrameType | None) -> None:
    raise _Enough


def main(path: str, kind: str) -> None:
    counter = Counter()
    signal.signal(signal.SIGTERM, _enough)
    try:
        asked = Asked(path, REQUESTS[kind])
        while kind == "stalled":
            signal.pause()
        while asked.read(counter):
            pass
        raise SystemExit("the server has ended the stream of flows")
    except _Enough:
        print(json.dumps({"flows": counter.flows, "lost": counter.lost}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
