"""Takes Envoy's gRPC access log and throws it away: the receiver of the bare proxy's log. Runs as a process of its own.

python -m benchmarks.log_sink SOCKET
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import grpc
import grpc.aio

SERVICE = "envoy.service.accesslog.v3.AccessLogService"


async def serve(path: str) -> None:
    """Listen on the Unix socket until the process is ended."""
    server = grpc.aio.server()
    method = grpc.stream_unary_rpc_method_handler(_swallow)  # raw bytes, as nothing reads them
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": method}),))
    server.add_insecure_port(f"unix://{path}")
    await server.start()
    await server.wait_for_termination()


async def _swallow(messages: AsyncIterator[bytes], _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    async for _ in messages:
        pass
    return b""


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
