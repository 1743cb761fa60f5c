"""The access-log service that Envoy streams to, as a handler for a server that somebody else runs (the ADS server's).

It hands raw messages on and reads no further: decoding waits until somebody wants to see flows (flows.intake). It
never makes Envoy wait: a message is taken at once, or lost with its stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
import grpc.aio
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsResponse

SERVICE = "envoy.service.accesslog.v3.AccessLogService"


class AccessLogService:
    """Counts what came. `sink` gets every message, serialised, in the order of its stream; it must not raise."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self.streams = 0  # open now
        self.messages = 0

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server that has not been started."""
        method = grpc.stream_unary_rpc_method_handler(
            self._stream,
            request_deserializer=None,  # raw bytes
            response_serializer=StreamAccessLogsResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": method}),))

    async def _stream(
        self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, StreamAccessLogsResponse]
    ) -> StreamAccessLogsResponse:
        self.streams += 1
        try:
            async for raw in messages:
                self.messages += 1
                self._sink(raw)
        finally:
            self.streams -= 1
        return StreamAccessLogsResponse()
