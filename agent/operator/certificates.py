"""Certificates of the webhook: files that somebody renews, or our own, made in memory and never written anywhere.

Of our own, each operator has an authority of its own that signs one certificate and is forgotten; what others must
trust is its public half, which goes into the webhook's configuration (agent.operator.injection).
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.errors import EnvironmentProblem
from flows.rpc.tls import TlsError, TlsFiles, fingerprint

OWN_DAYS: Final = 30
RENEW_AFTER: Final = 2 / 3  # of the time that a certificate is good for
SLACK: Final = timedelta(minutes=5)  # clocks differ
AUTHORITY: Final = "deflector-operator"
NAME_MAX: Final = 64  # characters of a common name


@dataclass(frozen=True, slots=True)
class Issued:
    """PEM. `authority` is what others must trust."""

    authority: bytes
    certificate: bytes
    key: bytes
    until: datetime

    def is_old(self, now: datetime) -> bool:
        """Whether another one should take over."""
        return now >= self.until - timedelta(days=OWN_DAYS) * (1 - RENEW_AFTER)


def issue(names: Sequence[str], identity: str, now: datetime) -> Issued:
    """A certificate for these DNS names, by an authority that signs nothing else."""
    until = now + timedelta(days=OWN_DAYS)
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _name(f"{AUTHORITY} {identity}")

    def build(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(root).public_key(key.public_key())
        return (
            made.serial_number(x509.random_serial_number())
            .not_valid_before(now - SLACK)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )

    authority = (
        build(root, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    trusted = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    leaf = (
        build(_name(names[0]), leaf_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(trusted, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Issued(authority.public_bytes(pem), leaf.public_bytes(pem), key, until)


def bundle(has: bytes, ours: bytes, now: datetime, most: int) -> bytes:
    """Authorities to trust: ours, and those of our kind that are still good, the newest ones first."""
    wanted = x509.load_pem_x509_certificate(ours)
    try:
        others = x509.load_pem_x509_certificates(has) if has.strip() else []
    except ValueError:
        others = []
    alive = {c for c in others if c.not_valid_after_utc > now and _is_ours(c)} - {wanted}
    newest = sorted(alive, key=lambda c: (c.not_valid_before_utc, c.serial_number), reverse=True)[: most - 1]
    chosen = sorted([wanted, *newest], key=lambda c: (c.not_valid_before_utc, c.serial_number))
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chosen)


class OwnCertificate:
    """A certificate made here, and made anew in time."""

    def __init__(self, names: Sequence[str], identity: str, clock: Callable[[], datetime]) -> None:
        self._names, self._identity, self._clock = tuple(names), identity, clock
        self._issued = issue(self._names, identity, clock())
        self._context = _context()
        _load(self._context, self._issued)

    def renew(self) -> bool:
        """Make another one if it is time; whether that was so. Connections from now on see it."""
        if not self._issued.is_old(self._clock()):
            return False
        self._issued = issue(self._names, self._identity, self._clock())
        _load(self._context, self._issued)
        return True

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    @property
    def authority(self) -> bytes:
        return self._issued.authority


class FileCertificate:
    """A certificate in files, read again when they change; `complain` hears why they cannot be."""

    def __init__(self, files: TlsFiles, complain: Callable[[str], None]) -> None:
        """Raises EnvironmentProblem."""
        self._files, self._complain = files, complain
        self._seen = fingerprint(files.all)
        self._context = _context()
        try:
            self._read(self._context)
        except TlsError as error:
            raise EnvironmentProblem(str(error)) from None

    def renew(self) -> bool:
        """Read them if they have changed. The pair that was read before stays if they are bad."""
        seen = fingerprint(self._files.all)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._read(_context())  # a pair that does not fit would leave half of it behind
            self._read(self._context)
        except TlsError as error:
            self._complain(f"{error}; the certificate that was read before stays in use")
            return False
        return True

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    @property
    def authority(self) -> bytes:
        """Who vouches for it is not our affair."""
        return b""

    def _read(self, context: ssl.SSLContext) -> None:
        pair = (self._files.certificate, self._files.key)
        try:
            for path in pair:
                path.read_bytes()
            context.load_cert_chain(*pair, password=_no_password)
        except ssl.SSLError as error:
            raise TlsError(f"{pair[0]}, {pair[1]}: {error.reason or error}") from None
        except (OSError, ValueError) as error:
            raise TlsError(f"{pair[0]}, {pair[1]}: {getattr(error, 'strerror', None) or error}") from None


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load(context: ssl.SSLContext, issued: Issued) -> None:
    """OpenSSL reads keys from files only: this one is memory."""
    fd = os.memfd_create("pem")
    try:
        os.write(fd, issued.certificate + issued.key)
        context.load_cert_chain(Path(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def _no_password() -> str:
    raise ValueError("the key is encrypted: give one without a pass phrase")


def _is_ours(certificate: x509.Certificate) -> bool:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return any(str(name.value).startswith(AUTHORITY) for name in names)


def _name(words: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, words[:NAME_MAX])])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
