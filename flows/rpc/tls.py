"""TLS of a server: certificate files that are read anew when they change, and handshakes on accepted connections.

TLS 1.3 at least and HTTP/2 by ALPN, as Hubble's clients expect. Every connection is secured with the certificate that
stands in the files when it begins; those that are open keep theirs.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HANDSHAKE: Final = 10.0  # seconds
PROTOCOL: Final = "h2"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class TlsError(Exception):
    """The files cannot be used; one line that says which and why."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_cas`, clients must show a certificate that one of these authorities has signed."""

    certificate: Path
    key: Path
    client_cas: tuple[Path, ...] = ()

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.certificate, self.key, *self.client_cas)


class ServerTls:
    """What a server shows. `complain` gets one line when files have become unusable: the last good ones stay."""

    def __init__(self, files: TlsFiles, complain: Callable[[str], None]) -> None:
        """Raises TlsError."""
        self._files, self._complain = files, complain
        self._seen = fingerprint(files.all)
        self._context = _made(files)

    def context(self) -> ssl.SSLContext:
        """For one new connection."""
        seen = fingerprint(self._files.all)
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = _made(self._files)
            except TlsError as error:
                self._complain(f"{error}; the certificate that was read before stays in use")
        return self._context


def fingerprint(paths: tuple[Path, ...]) -> tuple[tuple[int, ...], ...]:
    """What changes when the files do, also when a kubelet swaps links; a file that is not there has an empty one."""
    found: list[tuple[int, ...]] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(())
        else:
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _made(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([PROTOCOL])
    context.num_tickets = 0  # a session that is resumed would outlive the authority that vouched for its client
    path = files.certificate
    try:
        path.read_bytes()  # OpenSSL's errors do not say which file they are about
        path = files.key
        path.read_bytes()
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
        for path in files.client_cas:
            context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsError(f"{path}: {_reason(error)}") from None
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise TlsError(f"{path}: {error}") from None
    if files.client_cas:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("is encrypted: give a key without a pass phrase")


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "is not the key of the certificate"
    return f"is no PEM file as wanted here ({(error.reason or str(error)).replace('_', ' ').lower()})"


class Held(asyncio.StreamReaderProtocol):
    """A connection of which nothing is read before its handshake is asked for: nothing may be missed by it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        super().connection_made(transport)


class _Secure(asyncio.StreamReaderProtocol):
    def eof_received(self) -> bool:
        super().eof_received()
        return False  # TLS connections are not half open


async def secured(transport: asyncio.WriteTransport, context: ssl.SSLContext) -> Streams:
    """The connection after its handshake. Raises OSError if there is none, or it does not agree on HTTP/2."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = _Secure(reader)
    secure = await loop.start_tls(transport, protocol, context, server_side=True, ssl_handshake_timeout=HANDSHAKE)
    if secure is None:
        raise ConnectionAbortedError
    protocol.connection_made(secure)
    connected: ssl.SSLObject = secure.get_extra_info("ssl_object")
    if connected.selected_alpn_protocol() != PROTOCOL:
        secure.abort()
        raise ConnectionAbortedError
    return reader, asyncio.StreamWriter(secure, protocol, reader, loop)
