"""What a node has learned of names, as plain data: the form of `deflector fqdn list -o json`, and its lines for people.
Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from agent.names.book import NameBook
from agent.names.learning import Learning
from agent.names.names import Names
from policies.compiling.fqdns import selector_of
from policies.errors import one_line
from policies.ir import Endpoint, FqdnSelector
from policies.labels import FQDN, fqdn_key
from policies.objects import ObjectKey
from policies.rules import FqdnPeer, Policy

_LIVE = 120.0  # seconds since a round of the collector saw a connection


@dataclass(frozen=True, slots=True)
class Around:
    """What of a node a list of names speaks of. `now`: Unix time."""

    endpoints: Iterable[Endpoint]
    policies: Mapping[ObjectKey, Policy]
    identity_of: Callable[[bytes, int], int | None]
    now: float


class Lister:
    """Makes rows of names, as many at a time as its caller wants."""

    def __init__(self, names: Names, around: Around) -> None:
        self._names = names
        self._around = around
        self._pods = {endpoint.id: f"{endpoint.namespace}/{endpoint.name}" for endpoint in around.endpoints}
        self._origins: dict[FqdnSelector, set[str]] = {}
        for policy in around.policies.values():
            for clause in (clause for rule in policy.rules for clause in rule.egress):
                for peer in clause.peers or ():
                    if isinstance(peer, FqdnPeer):
                        self._origins.setdefault(peer.selector, set()).add(str(clause.origin))

    def rows(self, book: NameBook, names: Iterable[str]) -> list[dict[str, Any]]:
        """One for each of these names of a book, in their order."""
        return [self._row(book, name) for name in names]

    def _row(self, book: NameBook, name: str) -> dict[str, Any]:
        selectors = {selector_of(key) for key in self._names.selectors(name)}
        return {
            "name": name,
            "selectors": sorted(fqdn_key(s.pattern or s.name).removeprefix(f"{FQDN}:") for s in selectors),
            "policies": sorted({origin for s in selectors for origin in self._origins.get(s, ())}),
            "addresses": [self._address(book, name, address) for address in sorted(book.addresses(name))],
        }

    def _address(self, book: NameBook, name: str, address: bytes) -> dict[str, Any]:
        around = self._around
        held = book.held(name, address)
        alive = max(holding.alive for holding in held)
        return {
            "address": str(ipaddress.ip_address(address)),
            "identity": around.identity_of(address, held[0].endpoint),
            "ttl_left": round(max(0.0, max(holding.expires for holding in held) - around.now)),
            "learned_by": sorted(self._pods.get(h.endpoint, f"endpoint {h.endpoint} (gone)") for h in held),
            "connected": around.now - alive < _LIVE,
        }


def summary(names: Names, learning: Learning) -> dict[str, Any]:
    """Numbers that `deflector status` shows too."""
    p50, p99 = learning.latency()
    bounds = names.options.bounds
    return {
        "held": len(names.book),
        "bound": bounds.whole,
        "bound_per_pod": bounds.per_endpoint,
        "overheard": len(names.overheard),
        "waiting": learning.waiting,
        "latency_p50_ms": round(p50 * 1000, 3),
        "latency_p99_ms": round(p99 * 1000, 3),
        **asdict(learning.counts),
    }


def names_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per address."""
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "ADDRESS", "TTL LEFT", "LEARNED BY", "SELECTED BY", "POLICY"):
        table.add_column(heading, no_wrap=True, overflow="ignore")
    for row in rows:
        for address in row["addresses"]:
            table.add_row(
                one_line(row["name"]),
                address["address"],
                _left(address),
                " ".join(address["learned_by"]),
                " ".join(row["selectors"]) or "-",
                one_line(", ".join(row["policies"])) or "-",
            )
    return table


def _left(address: Mapping[str, Any]) -> str:
    """Behind its TTL an address stays for its connections, and until somebody looks."""
    if address["ttl_left"]:
        return f"{address['ttl_left']} s"
    return "in use" if address["connected"] else "expired"


def names_summary(document: Mapping[str, Any]) -> Iterator[Text]:
    """How much room there is, and what had none."""
    numbers = document["summary"]
    yield Text(f"{numbers['held']:,} of {numbers['bound']:,} addresses of names that policies select")
    if numbers["refused"]:
        yield Text(f"{numbers['refused']:,} answers could not be put in force, and were withheld", style="red")
    if numbers["overheard"]:
        yield Text(f"{numbers['overheard']:,} addresses of names that no policy selects (--all)")
