"""What a client asked of one resource type on one stream.

Pure. Every rule is a sentence of https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol, section "How the
client specifies what resources to return" (cited as [sub]).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

WILDCARD = "*"


@dataclass(slots=True)
class Subscription:
    """Names, and whether everything is wanted. `is_explicit`: some name, or `*`, has been asked for by name."""

    names: set[str] = field(default_factory=set)
    is_wildcard: bool = False
    is_explicit: bool = False

    def wants(self, name: str) -> bool:
        return self.is_wildcard or name in self.names

    def replace(self, names: Collection[str]) -> None:
        """State of the world: each request carries the whole list.

        [sub] No name ever asked for: the empty list is `*` ("legacy wildcard"). Once some name has been asked for, the
        empty list is nothing.
        """
        self.is_explicit = self.is_explicit or bool(names)
        self.is_wildcard = WILDCARD in names or not self.is_explicit
        self.names = set(names) - {WILDCARD}

    def change(self, subscribe: Collection[str], unsubscribe: Collection[str], *, is_first: bool) -> None:
        """Delta: each request carries what changes.

        [sub] A first request that subscribes to nothing is a subscription to `*`, and it lasts, whatever names are
        asked for later, until `*` is unsubscribed from.
        """
        if is_first and not subscribe:
            self.is_wildcard = True
        if WILDCARD in subscribe:
            self.is_wildcard = True
        if WILDCARD in unsubscribe:
            self.is_wildcard = False
        self.is_explicit = self.is_explicit or bool(subscribe)
        self.names |= set(subscribe) - {WILDCARD}
        self.names -= set(unsubscribe)
