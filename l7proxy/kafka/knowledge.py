"""What a connection has taught: the names of topic ids, and which topics its fetch sessions hold. Pure and bounded.

What it has taught others is good enough to name a topic in a record, but nothing is allowed for it.
A topic id never changes its topic (KIP-516). A session (KIP-227; KIP-932 for share groups) is known if it was opened
through this connection while all of its topics were allowed; of any other nobody can say what it would send.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from l7proxy.kafka.subjects import Subject

IDS_MAX: Final = 100_000
SESSIONS_MAX: Final = 64
SESSION_TOPICS_MAX: Final = 20_000


class Hearsay:
    """The names of topic ids that servers have told anybody, by server."""

    def __init__(self) -> None:
        self._names: dict[tuple[Hashable, bytes], str] = {}

    def learn(self, server: Hashable, number: bytes, name: str) -> None:
        """The server said that this id is that topic's."""
        if len(self._names) >= IDS_MAX:
            self._names.clear()  # they will be told again
        self._names[server, number] = name

    def name(self, server: Hashable, number: bytes) -> str | None:
        """What the server said; None if it did not."""
        return self._names.get((server, number))


class Knowledge:
    """Of one connection; to which server, and what is said of it."""

    def __init__(self, server: Hashable = None, hearsay: Hearsay | None = None) -> None:
        self._server = server
        self._hearsay = Hearsay() if hearsay is None else hearsay
        self._names: dict[bytes, str] = {}
        self._sessions: dict[Hashable, set[Subject]] = {}

    def learn(self, number: bytes, name: str) -> None:
        """The server said that this id is that topic's."""
        if len(self._names) >= IDS_MAX:
            self._names.clear()  # they can be asked for again
        self._names[number] = name
        self._hearsay.learn(self._server, number, name)

    def title(self, about: Subject) -> str:
        """What a record calls the topic: "" if nobody knows its name."""
        name = self.name(about)
        if name is None and about.id is not None:
            name = self._hearsay.name(self._server, about.id)
        return name or ""

    def name(self, about: Subject) -> str | None:
        """The topic's name; None if nobody knows it."""
        if about.name is not None or about.id is None:
            return about.name
        return self._names.get(about.id)

    def session(self, number: Hashable) -> frozenset[Subject] | None:
        """The topics of a session; None if it is not known."""
        held = self._sessions.get(number)
        return None if held is None else frozenset(held)

    def extend(self, number: Hashable, topics: Iterable[Subject]) -> None:
        """A session has been opened, or holds these topics too."""
        held = self._sessions.pop(number, set())
        held.update(topics)
        if len(held) > SESSION_TOPICS_MAX:
            return  # it is not known any more
        while len(self._sessions) >= SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[number] = held

    def forget(self, number: Hashable) -> None:
        """A session is over."""
        self._sessions.pop(number, None)
