"""The server of a deathstar pod: HTTP, and echoes of UDP and SCTP. Runs alone inside the pod's network namespace; logs
nothing.

    python -m conformance.deathstar --pod NAME --port 80 --port 8080 --udp 7007

Prints one line, `ready`, and dies with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import signal
import socket
import sys
from collections import Counter
from typing import cast

from conformance.packets import SCTP_PROTOCOL, sctp_answer, sctp_payload
from conformance.speakers import HttpConnection, Tally

PR_SET_PDEATHSIG = 1


class UdpEcho(asyncio.DatagramProtocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # 3.11's selector transport is no subclass of it

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


class SctpEcho:
    """Answers each INIT with an INIT ACK on a raw socket, so that no kernel module is needed. IPv4 raw sockets read the
    IP header too, IPv6 ones do not."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self._socket = socket.socket(family, socket.SOCK_RAW, SCTP_PROTOCOL)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._answer)

    def _answer(self) -> None:
        packet, address = self._socket.recvfrom(1 << 16)
        answer = sctp_answer(sctp_payload(packet, self._socket.family == socket.AF_INET))
        if answer:
            self._socket.sendto(answer, (address[0], 0))


async def serve(pod: str, ports: list[int], udp: list[int]) -> None:
    """Listen on every address of the namespace, IPv4 and IPv6, until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tally: Tally = Counter()
    for port in ports:
        for host in ("0.0.0.0", "::"):
            await loop.create_server(lambda: HttpConnection(pod, tally), host, port, backlog=1024)
    for port in udp:
        await loop.create_datagram_endpoint(
            UdpEcho, local_addr=("::", port)
        )  # IPv4 too: nothing sets IPV6_V6ONLY on UDP
    echoes = [SctpEcho(family) for family in (socket.AF_INET, socket.AF_INET6)]
    print("ready", flush=True)
    await stop.wait()
    del echoes


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pod", required=True)
    parser.add_argument("--port", type=int, action="append", default=[])
    parser.add_argument("--udp", type=int, action="append", default=[])
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.pod, arguments.port, arguments.udp))
    except OSError as error:
        sys.exit(f"deathstar {arguments.pod}: {error}")


if __name__ == "__main__":
    main()
