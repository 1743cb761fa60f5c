"""What a proxy of ours was told last, on its disk: it goes on with that after its own death, whether or not an agent is
there. One file, replaced whole.

What was written is kept by the kernel when the process is killed, so nothing waits for the disk: after a crash of the
machine there are no pods whose queries could matter.
"""

from __future__ import annotations

import os
from pathlib import Path

from google.protobuf.message import DecodeError

from xds.client import Told
from xds.l7 import DnsNode, dns_options, kafka_options, l7_listener, read_dns_options, read_kafka_options, read_listener
from xds.protos.deflector.l7.v1 import filters_pb2 as pb


def load(path: Path) -> Told:
    """What was saved; nothing where there is no file. ValueError, in one line, where it cannot be read."""
    try:
        return unpacked(path.read_bytes())
    except FileNotFoundError:
        return Told()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def save(path: Path, told: Told) -> None:
    """Replace the file in one step. OSError where that fails."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(packed(told))
    beside.chmod(0o600)
    os.replace(beside, path)


def packed(told: Told) -> bytes:
    """As bytes, for a file or another worker."""
    listeners = [l7_listener(one.slot, one.port, ipv6=True).body for one in told.listening]
    options = {"dns_options": dns_options(told.dns).body, "kafka_options": kafka_options(told.kafka).body}
    return pb.LastTold(listeners=listeners, **options).SerializeToString()


def unpacked(content: bytes) -> Told:
    """The reverse; ValueError for other bytes."""
    try:
        stored = pb.LastTold.FromString(content)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    dns = read_dns_options(stored.dns_options) if stored.dns_options else DnsNode()
    return Told(tuple(map(read_listener, stored.listeners)), dns, read_kafka_options(stored.kafka_options))
