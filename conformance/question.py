"""A question to a nameserver, and the answer that is right. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from conformance.target import Target


class Resolution(StrEnum):
    """What a question is to end in; conformance.dns_expectation says which flows must tell of it."""

    RESOLVED = "resolved"  # judged by the DNS proxy, and answered by the server
    REFUSED = "refused"  # judged by the DNS proxy, which refuses in the server's name
    WITHHELD = "withheld"  # asked of the server, but what it said is kept back: SERVFAIL
    DIRECT = "direct"  # answered, and no proxy in between
    DROPPED = "dropped"  # no answer: packets to the server are dropped by policy


class Client(StrEnum):
    """Who resolves. CURL goes on to fetch http://NAME/ from the address that it got, at once."""

    DIG = "dig"
    GLIBC = "glibc"  # getaddrinfo, by getent
    CARES = "cares"
    CURL = "curl"


CHOOSES_TYPE = (Client.DIG, Client.CARES)
QTYPES = ("A", "AAAA", "TXT", "MX", "SRV", "CNAME", "HTTPS", "PTR", "ANY")
TRANSPORTS = ("udp", "tcp")


@dataclass(frozen=True, slots=True)
class Question:
    """One question and the answer that is right.

    `addresses` are hosts of the galaxy whose addresses must be in it, no others; `rcode` is what the server says where
    it is asked. `has` are texts that some record of the answer must contain. `by` names the policy that allows. `over`
    is the transport that the client begins with; `arrives_by` the one that the answer comes by. `flows` are expected
    beside those that the outcome implies: field -> value, or ~regex. `unwatched`: there is no agent to tell flows.
    """

    source: str
    server: Target
    name: str
    expect: Resolution
    client: Client = Client.DIG
    qtype: str = "A"
    over: str = "udp"
    arrives_by: str = "udp"
    family: int = 4
    rcode: str = "NOERROR"
    addresses: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    by: str = ""
    dnssec: bool = False
    flows: tuple[Mapping[str, str], ...] = ()
    unwatched: bool = False

    @property
    def asked(self) -> str:
        """The name as flows have it."""
        return self.name.lower().rstrip(".") + "."

    @property
    def qtypes(self) -> tuple[str, ...]:
        """The types that the client asks for. curl is told the family that it is to connect by."""
        if self.client is Client.CURL:
            return ("A",) if self.family == 4 else ("AAAA",)
        return (self.qtype,) if self.client in CHOOSES_TYPE else ("A", "AAAA")

    def __str__(self) -> str:
        return f"{self.source} -> {self.server} IPv{self.family} {self.client} {self.name} {'+'.join(self.qtypes)}"
