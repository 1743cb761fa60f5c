"""How a client reaches a server of the Hubble API: plainly, by TLS, or by TLS without asking who is there.

Targets are `unix:///path`, `host:port` or `tls://host:port`; Unix sockets never speak TLS.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from flows.rpc.tls import fingerprint

MESSAGE_MAX: Final = 16 << 20  # bytes
OPTIONS: Final = (("grpc.max_receive_message_length", MESSAGE_MAX), ("grpc.enable_http_proxy", 0))
UNIX: Final = "unix:"
TLS: Final = "tls://"
CHUNK: Final = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files that a client trusts servers by (none: the machine's authorities), and shows to those that ask.

    `server_name` is what the server's certificate must say, if it is not its address.
    """

    cas: tuple[Path, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""
    allow_insecure: bool = False

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises OSError."""
        trusted = b"\n".join(path.read_bytes() for path in self.cas) or None
        key, certificate = (path.read_bytes() if path is not None else None for path in (self.key, self.certificate))
        return grpc.ssl_channel_credentials(trusted, key, certificate)

    def fingerprint(self) -> object:
        """What changes when the files do."""
        return fingerprint((*self.cas, *(path for path in (self.certificate, self.key) if path is not None)))


@dataclass(frozen=True, slots=True)
class Dial:
    """A server, and how to reach it. Times in seconds: to connect, and for an answer that is no stream.

    `authorization`: what to say of oneself with each call; only over TLS.
    """

    target: str
    tls: ClientTls | None = None
    timeout: float = 5.0
    request_timeout: float = 12.0
    authorization: str = ""

    def __str__(self) -> str:
        return self.target

    @property
    def address(self) -> str:
        return self.target.removeprefix(TLS)

    @property
    def secure(self) -> ClientTls | None:
        """The TLS that is spoken there, if any is."""
        if self.target.startswith(UNIX):
            return None
        return self.tls or (ClientTls() if self.target.startswith(TLS) else None)


def basic(user: str, password: str) -> str:
    """The `authorization` of a user with a password (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@asynccontextmanager
async def dialled(dial: Dial) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the server. Raises OSError if a file cannot be read."""
    tls = dial.secure
    if tls is None:
        async with grpc.aio.insecure_channel(dial.address, options=OPTIONS) as channel:
            yield channel
    elif not tls.allow_insecure:
        named = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
        async with grpc.aio.secure_channel(dial.address, tls.credentials(), options=(*OPTIONS, *named)) as channel:
            yield channel
    else:
        async with _bridge(dial.address, tls) as plain, grpc.aio.insecure_channel(plain, options=OPTIONS) as channel:
            yield channel


@asynccontextmanager
async def _bridge(address: str, tls: ClientTls) -> AsyncIterator[str]:
    """A socket of ours behind which TLS begins: gRPC's own trusts nobody unseen, and hubble's users may ask for it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    host, _, port = address.rpartition(":")

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            name = tls.server_name or host
            there = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context, server_hostname=name)
        except (OSError, ValueError):
            writer.transport.abort()  # gRPC tells of a server that is not there
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(reader, there[1]))
            group.create_task(_pump(there[0], writer))

    with tempfile.TemporaryDirectory(prefix="deflector-") as folder:
        server = await asyncio.start_unix_server(carry, f"{folder}/tls")
        try:
            yield f"unix://{folder}/tls"
        finally:
            server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while content := await reader.read(CHUNK):
            writer.write(content)
            await writer.drain()
    except OSError:
        pass  # the other side is told by the end
    finally:
        writer.close()
