"""The book of open queries: what was asked of whom for whom, and which answer belongs to which. Pure.

An answer belongs to a query iff id, questions, server and transport are those of the query: server and transport are
the channel's, which is a socket connected to one server. Ids are drawn by the caller from a source that nobody can
guess, never the client's own. A client's repetition is the same transaction again, so it cannot fill the book.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from l7proxy.dns.judge import Decision
from l7proxy.dns.names_on_wire import HEADER_SIZE
from l7proxy.dns.wire import NOERROR, Asking, Query, Question, Response
from policies.types import Protocol

DRAWS_MAX: Final = 16  # ids drawn before a channel counts as full; channels hold few of the 65,536


class Client(NamedTuple):
    """Whom an answer goes to: a pod's socket, and the way that its query came. `stream` is the number of a TCP
    connection and `number` that of a query on it, as nothing is repeated where nothing is lost; 0 on UDP."""

    protocol: Protocol
    proxy_port: int
    pod: str
    pod_port: int
    server: str
    server_port: int
    stream: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Open queries, of one pod and of all together; those whose answer is held count as well."""

    per_pod: int = 1024
    whole: int = 8192


class Admitted(NamedTuple):
    """A query that may be asked, and what says so."""

    query: Query
    decision: Decision


@dataclass(slots=True, eq=False)
class Transaction:
    """An open query. Times in seconds, of a clock that never goes back."""

    channel: int  # number of a socket that is connected to the server; never used twice
    id: int  # ours, towards the server
    client: Client
    message: bytes  # as the client sent it
    query: Query
    decision: Decision
    opened: float
    deadline: float

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.query.questions

    @property
    def asking(self) -> Asking:
        """What the server is asked."""
        return Asking(self.message[HEADER_SIZE : self.query.end], self.query.questions)

    def outgoing(self) -> bytes:
        """The client's message under our id, otherwise untouched."""
        return self.id.to_bytes(2, "big") + self.message[2:]

    def incoming(self, message: bytes) -> bytes:
        """The server's answer under the client's id, otherwise untouched."""
        return self.message[:2] + message[2:]


class Transactions:
    """All open queries. `draw` gives a number of at least 16 bits that nobody can guess."""

    def __init__(self, limits: Limits, draw: Callable[[], int]) -> None:
        self._limits = limits
        self._draw = draw
        self._awaited: OrderedDict[tuple[int, int], Transaction] = OrderedDict()  # by deadline
        self._by_client: dict[tuple[Client, bytes], Transaction] = {}
        self._per_pod: dict[str, int] = {}

    def __len__(self) -> int:
        """Open queries, and those whose answer is held."""
        return len(self._by_client)

    def repeated(self, client: Client, message: bytes) -> Transaction | None:
        """The transaction that this query is a repetition of."""
        return self._by_client.get((client, message))

    def has_room(self, pod: str) -> bool:
        """Whether the pod may open one more."""
        return len(self._by_client) < self._limits.whole and self._per_pod.get(pod, 0) < self._limits.per_pod

    def open(
        self, channel: int, client: Client, message: bytes, admitted: Admitted, *, now: float, timeout: float
    ) -> Transaction | None:
        """Book a query under an id of our own; None where there is no room."""
        if not self.has_room(client.pod):
            return None
        for _ in range(DRAWS_MAX):
            number = self._draw() & 0xFFFF
            if (channel, number) not in self._awaited:
                break
        else:
            return None
        made = Transaction(channel, number, client, message, *admitted, now, now + timeout)
        self._awaited[channel, number] = made
        self._by_client[client, message] = made
        self._per_pod[client.pod] = self._per_pod.get(client.pod, 0) + 1
        return made

    def awaited(self, channel: int, number: int) -> Transaction | None:
        """The query that an answer with this id would belong to."""
        return self._awaited.get((channel, number))

    def answered(self, channel: int, response: Response) -> Transaction | None:
        """The query that the answer belongs to: it is awaited no more, but keeps its room until it is settled."""
        found = self._awaited.get((channel, response.id))
        if found is None or not _is_about(response, found.questions):
            return None
        del self._awaited[channel, response.id]
        return found

    def await_more(self, transaction: Transaction, *, now: float, timeout: float) -> None:
        """More messages of the same answer are to come (zone transfers)."""
        transaction.deadline = now + timeout
        self._awaited[transaction.channel, transaction.id] = transaction

    def settle(self, transaction: Transaction) -> None:
        """The client has its answer, or will get none: forget the query. Harmless the second time."""
        self._awaited.pop((transaction.channel, transaction.id), None)
        client = transaction.client
        if self._by_client.pop((client, transaction.message), None) is None:
            return
        left = self._per_pod[client.pod] - 1
        if left:
            self._per_pod[client.pod] = left
        else:
            del self._per_pod[client.pod]

    def expire(self, now: float) -> list[Transaction]:
        """Settle and return what the server has not answered in time."""
        late: list[Transaction] = []
        while self._awaited:
            transaction = next(iter(self._awaited.values()))
            if transaction.deadline > now:
                break
            self.settle(transaction)
            late.append(transaction)
        return late


def _is_about(response: Response, questions: tuple[Question, ...]) -> bool:
    """Names are compared without case: who plays 0x20 compares the server's very bytes, which are passed on. A server
    that could not read the query may leave out the questions, but then it has nothing to say beside its error."""
    if response.questions == questions:
        return True
    return not response.questions and response.rcode != NOERROR and not response.rrtypes
