"""Packets made by hand, for what no kernel sends."""

from __future__ import annotations

import socket
import struct

from tests.bpf.galaxy import inside
from tests.bpf.stage import Stage


def send_frame(stage: Stage, pod: str, kind: int, body: bytes) -> None:
    with inside(stage.galaxy.pods[pod].namespace):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        raw.bind(("eth0", 0))
    with raw:
        raw.send(
            stage.galaxy.pods[pod].gateway_mac + raw.getsockname()[4] + struct.pack("!H", kind) + body.ljust(46, b"\0")
        )


def ipv4(
    stage: Stage,
    protocol: int,
    payload: bytes,
    *,
    fragment: int = 0,
    options: bytes = b"",
    total: int | None = None,
    sender: str = "client",
    receiver: str = "server",
) -> bytes:
    header = 20 + len(options)
    size = header + len(payload) if total is None else total
    head = struct.pack("!BBHHHBBH", 0x40 | header // 4, 0, size, 77, fragment, 64, protocol, 0)
    addresses = b"".join(socket.inet_aton(stage.galaxy.pods[name].v4) for name in (sender, receiver))
    checksum = internet_checksum(head + addresses + options)
    return head[:10] + checksum + addresses + options + payload


def internet_checksum(raw: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)


def ipv6(stage: Stage, following: int, payload: bytes) -> bytes:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    addresses = socket.inet_pton(socket.AF_INET6, client.v6) + socket.inet_pton(socket.AF_INET6, server.v6)
    return struct.pack("!IHBB", 0x60000000, len(payload), following, 64) + addresses + payload
