"""Where query and answer are judged and booked: everything of the proxy that is no I/O. Pure; time is an argument.

admit     a query came      -> the query to be forwarded, or a refusal
open      it is forwarded   -> its transaction
receive   an answer came    -> what it teaches, to be released or withheld
release, withhold           -> the bytes for the client; the transaction is settled
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from l7proxy.dns.answers import ForeignAnswer, Gist, gist
from l7proxy.dns.configuration import Configuration, Options
from l7proxy.dns.judge import Decision, Judge, Reason
from l7proxy.dns.names_on_wire import HEADER_SIZE, WireError
from l7proxy.dns.records import AccessRecord, RecordSink
from l7proxy.dns.replies import format_error, refusal
from l7proxy.dns.transactions import Admitted, Client, Limits, Transaction, Transactions
from l7proxy.dns.wire import TRANSFERS, Response, read_query, read_response
from policies.types import Protocol


class Answered(NamedTuple):
    """An answer that belongs to a query. With a reason it must not be released."""

    transaction: Transaction
    message: bytes
    response: Response | None = None
    gist: Gist = Gist()
    reason: Reason | None = None


class Desk:
    """The judge in office, and the book of open queries."""

    def __init__(self, records: RecordSink, limits: Limits, draw: Callable[[], int]) -> None:
        self._records = records
        self._judge = Judge(None)
        self.options = Options()
        self.transactions = Transactions(limits, draw)

    def appoint(self, configuration: Configuration | None) -> None:
        """Judge by this configuration from now on; queries that are open were judged already."""
        self._judge = Judge(configuration)
        self.options = configuration.options if configuration else Options()

    def admit(self, client: Client, message: bytes) -> Admitted | bytes | None:
        """The query if it is to be forwarded; else the reply to send, or None for nothing at all."""
        place = (client.protocol, client.proxy_port)
        try:
            query = read_query(message)
        except WireError:
            about = Decision(Reason.MALFORMED, self._judge.slot(place))
            self._records.seen(AccessRecord(client, about, (), False, Reason.MALFORMED))
            return format_error(message)
        decision = self._judge.decide(place, query.opcode, query.questions)
        reason = decision.reason
        if reason is None and not self.transactions.has_room(client.pod):
            reason = Reason.OVERLOAD
        self._records.seen(AccessRecord(client, decision, query.questions, False, reason))
        return Admitted(query, decision) if reason is None else refusal(message, query, self._judge.rcode(reason))

    def open(
        self, channel: int, client: Client, message: bytes, admitted: Admitted, *, now: float
    ) -> Transaction | None:
        """Book a query that was admitted; None where there is no room for it after all."""
        return self.transactions.open(channel, client, message, admitted, now=now, timeout=self.options.query_timeout)

    def refuse(self, client: Client, message: bytes, admitted: Admitted, reason: Reason) -> bytes:
        """The reply to a query that was admitted, and could not be forwarded."""
        query, rcode = admitted.query, self._judge.rcode(reason)
        self._records.seen(AccessRecord(client, admitted.decision, query.questions, True, reason, rcode))
        return refusal(message, query, rcode)

    def receive(self, channel: int, message: bytes, now: float) -> Answered | None:
        """What came on a channel; None for what belongs to no query: a forgery, or a second answer."""
        if len(message) < HEADER_SIZE:
            return None
        awaited = self.transactions.awaited(channel, message[0] << 8 | message[1])
        if awaited is None:
            return None
        try:
            response = read_response(message, awaited.asking)
        except WireError:
            return Answered(awaited, message, reason=Reason.BAD_ANSWER)
        transaction = self.transactions.answered(channel, response)
        if transaction is None:
            return None
        try:
            return Answered(transaction, message, response, gist(transaction.questions, response))
        except ForeignAnswer:
            return Answered(transaction, message, response, reason=Reason.FOREIGN_ANSWER)

    def release(self, answered: Answered, now: float) -> bytes:
        """The answer for the client. A zone transfer goes on until its connection or its time ends."""
        transaction, response = answered.transaction, answered.response
        client = transaction.client
        if client.protocol is Protocol.TCP and any(q.qtype in TRANSFERS for q in transaction.questions):
            self.transactions.await_more(transaction, now=now, timeout=self.options.query_timeout)
        else:
            self.transactions.settle(transaction)
        self._records.seen(
            AccessRecord(
                client,
                transaction.decision,
                transaction.questions,
                True,
                None,
                response.rcode if response else 0,
                answered.gist,
                response.rrtypes if response else (),
                now - transaction.opened,
            )
        )
        return transaction.incoming(answered.message)

    def withhold(self, transaction: Transaction, reason: Reason, now: float) -> bytes:
        """The reply in place of an answer: the client is told at once, and does not wait in vain."""
        self.transactions.settle(transaction)
        rcode = self._judge.rcode(reason)
        about = (transaction.client, transaction.decision, transaction.questions)
        self._records.seen(AccessRecord(*about, True, reason, rcode, latency=now - transaction.opened))
        return refusal(transaction.message, transaction.query, rcode)

    def expire(self, now: float) -> list[Transaction]:
        """Give up what servers have not answered in time. Nothing is sent: resolvers gave up before (as Cilium)."""
        late = self.transactions.expire(now)
        for transaction in late:
            self.withhold(transaction, Reason.TIMEOUT, now)
        return late
