"""One connection of a client through the proxy, without its sockets: bytes in, bytes out, and what was seen. Pure.

    client ──▶ from_client ──▶ to_server        answers.out ◀── from_server ◀── server
                   │ refused: an answer of ours, in its turn
                   └ topic ids that nobody knows: the server is asked for their names, and the client waits

Whoever drives it sends what `to_server` and `answers.out` hold after each call, reads from the client while
`wants_client`, and closes when `is_over` and all is sent. Views that are fed are good within the call only.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from l7proxy.kafka import replies, treatments
from l7proxy.kafka.answers import Answers, Awaited, Broken, Rewrite, Treatment
from l7proxy.kafka.apis import API_VERSIONS, FETCH, METADATA, SASL_AUTHENTICATE, SASL_HANDSHAKE, SHARE_FETCH
from l7proxy.kafka.heads import head, is_tls
from l7proxy.kafka.judge import Post, Scope
from l7proxy.kafka.knowledge import Knowledge
from l7proxy.kafka.records import Connection, Reason, RecordSink
from l7proxy.kafka.refusals import Unanswerable
from l7proxy.kafka.request import Request
from l7proxy.kafka.verdicts import Asked, Outcome, Panel
from l7proxy.kafka.wire import WireError
from l7proxy.kafka.witness import Witness

IN_FLIGHT: Final = 1000  # requests of a connection that are not answered; then it is read no further
LOCAL_MAX: Final = 1 << 20  # bytes of our own answers that wait for their turn; likewise
LOOKUP: Final = -0x4B41  # correlation id of our own requests
_FREE: Final = Scope(())


class Mode(Enum):
    """What is done with the bytes of the request at hand."""

    JUDGE = "kept until it is judged"
    PASS = "forwarded"
    RISK = "forwarded before all of its topics are known: it is too large to be kept"
    GATHER = "kept until it is whole, as far as its answer needs it"


class Exchange:
    """One connection."""

    def __init__(self, connection: Connection, post: Post, sink: RecordSink) -> None:
        self.to_server: list[bytes | memoryview] = []
        self.answers = Answers()
        self.is_broken = False  # nothing that is still to be sent makes sense
        self._known = Knowledge((connection.server, connection.server_port), post.hearsay)
        self._post = post
        self._witness = Witness(connection, sink, self._known)
        self._partial = b""  # what was fed and cannot be taken yet
        self._is_new = True
        self._waits = self._resumes = self._finishing = self._ended = False
        self._request: Request | None = None
        self._mode = Mode.JUDGE
        self._scope = _FREE
        self._awaited: Awaited | None = None
        self._conclude: Callable[[Request], None] = self._refuse

    # --- what the driver asks ---

    @property
    def wants_client(self) -> bool:
        """Whether more of what the client sends can be taken."""
        return not (self._finishing or self._ended or self._is_blocked)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it, but what is still to be sent."""
        return self.is_broken or (self._finishing and not len(self.answers))

    @property
    def is_said(self) -> bool:
        """Whether the client will say no more, and nothing that it said is still here."""
        return self._ended and not self._is_blocked

    @property
    def held(self) -> int:
        """Bytes of a request that are kept."""
        return self._request.held_size if self._request is not None else 0

    # --- what happens ---

    def from_client(self, view: memoryview) -> None:
        """The client sent this."""
        if self._partial:
            view = memoryview(self._partial + bytes(view))
            self._partial = b""
        at, end = 0, len(view)
        while at < end and not self._finishing:
            if self._is_blocked or (self._request is None and not self._begin(view[at:])):
                self._partial = bytes(view[at:])
                return
            request = self._request
            assert request is not None
            piece = view[at : at + request.left]
            at += len(piece)
            self._take(request, piece)

    def from_server(self, view: memoryview) -> None:
        """The server sent this."""
        if self.is_broken:
            return
        try:
            self.answers.feed(view)
        except Broken as broken:
            self._break(broken.reason)
            return
        self._go_on()

    def client_ended(self) -> None:
        """The client will say no more."""
        self._ended = True
        if not self.to_server and not len(self.answers) and not self._waits:
            self._finishing = True

    def server_failed(self, reason: Reason) -> None:
        """There is no server, or no more room."""
        self._break(reason)

    def retire(self) -> None:
        """The rules have gone: take nothing more, and end when what was forwarded is answered. The client comes back by
        another door."""
        if self._request is None or self._mode in (Mode.JUDGE, Mode.GATHER):
            self._finishing = True

    # --- requests ---

    @property
    def _is_blocked(self) -> bool:
        return self._waits or len(self.answers) >= IN_FLIGHT or self.answers.local_size >= LOCAL_MAX

    def _go_on(self) -> None:
        """Something was answered: perhaps it was waited for."""
        if self._finishing:
            return
        if self._resumes and self._request is not None:
            self._resumes = False
            self._take(self._request, memoryview(b""))
        if self._partial and not self._is_blocked:
            partial, self._partial = self._partial, b""
            self.from_client(memoryview(partial))

    def _begin(self, view: memoryview) -> bool:
        """A request begins; False if its head is not there as a whole, or is none."""
        if self._is_new and is_tls(view):
            self._close(Reason.TLS)
            return False
        try:
            found = head(view)
        except WireError:
            self._close(Reason.MALFORMED)
            return False
        if found is None:
            return False
        self._is_new = False
        self._request = Request(found)
        self._admit(self._request)
        return not self._finishing

    def _admit(self, request: Request) -> None:
        """Judge by the head. What is judged by topics waits until they are known."""
        at, judge = request.head, self._post.judge
        is_sasl = at.key in (SASL_HANDSHAKE, SASL_AUTHENTICATE) and not judge.is_retired
        scope = _FREE if is_sasl else judge.scope(at.key, at.version, at.client_id)
        if is_sasl and at.key == SASL_HANDSHAKE and at.version == 0:
            scope = Scope(reason=Reason.OLD_SASL)
        self._scope = scope
        self._awaited = None
        self._conclude = self._refuse
        if judge.is_retired:
            self._witness.refused(at, (), scope.reason or Reason.RETIRED)
            self._finishing = True
        elif scope.everything is not None:
            self._expect(request, self._treatment(request))
        else:
            self._mode = Mode.GATHER if scope.reason is not None else Mode.JUDGE

    def _take(self, request: Request, piece: memoryview) -> None:
        try:
            request.feed(piece)
            if self._mode is Mode.JUDGE:
                self._judge(request, piece)
            elif self._mode is Mode.RISK:
                self._risk(request, piece)
            elif self._mode is Mode.PASS:
                self.to_server.append(piece)
                if self._scope.everything is not None and request.is_read_late:
                    request.hold(piece)  # for the record of it
            elif self._mode is Mode.GATHER:
                self._gather(request, piece)
            if not request.left and not self._waits and self._request is request:
                self._end(request)
        except WireError:
            self._malformed(request)

    def _end(self, request: Request) -> None:
        """All of the request has come, and has been judged."""
        self._request = None
        if self._mode is Mode.GATHER:
            self._conclude(request)
            return
        if self._awaited is not None:
            expects = request.expects_answer()
            self._awaited.never = expects is False
            self._awaited.optional = expects is None
            self.answers.settle()
            if self._scope.everything is not None:
                self._witness.allowed(request.head, request.topics(), self._scope.everything)

    def _expect(self, request: Request, treatment: Treatment) -> None:
        """The request is forwarded from now on."""
        at = request.head
        self._awaited = Awaited(at.key, at.version, at.correlation, treatment)
        self.answers.expect(self._awaited)
        self._mode = Mode.PASS

    def _treatment(self, request: Request) -> Treatment:
        """Of the answer to a request that is allowed whatever it is about."""
        at = request.head
        if not request.is_known:
            return None
        if at.key == API_VERSIONS and not self._post.judge.is_open:
            return treatments.narrowed(at.version)
        return treatments.learning(at.version, self._known) if at.key == METADATA else None

    # --- by topics ---

    def _panel(self, request: Request) -> Panel:
        return Panel(request.head.key, self._scope, self._known)

    def _judge(self, request: Request, piece: memoryview) -> None:
        if not request.is_scanned:
            if request.is_large:
                self._give_up(request, Reason.TOO_LARGE)
                return
            request.hold(piece)
            piece = piece[:0]
            if request.left:
                return
        subjects, is_all = request.subjects()
        panel = self._panel(request)
        if not is_all and not (request.is_large and subjects):
            request.hold(piece)
            return
        unknown = sorted(panel.unknown(subjects) - request.tried)
        if unknown:
            request.hold(piece)
            self._look_up(request, unknown[: treatments.LOOKUP_MAX])
            return
        asked = Asked(request.head.key, request.head.version, subjects, request.session())
        outcome = panel.decide(asked)
        if outcome is Outcome.FORWARD:
            self._forward(request, asked, panel)
            self.to_server += (*request.release(), piece)
            self._mode = Mode.PASS if is_all else Mode.RISK
            return
        self._mode = Mode.GATHER
        self._gather(request, piece)
        by_outcome = {Outcome.SPLIT: self._split, Outcome.REFUSE: self._refuse_topics, Outcome.RESTART: self._restart}
        self._conclude = by_outcome[outcome] if not request.is_large else self._refuse_topics

    def _look_up(self, request: Request, numbers: list[bytes]) -> None:
        """Ask the server for the names of topics; go on when it has answered."""
        request.tried.update(numbers)
        self._waits = True
        awaited = Awaited(METADATA, treatments.LOOKUP_VERSION, LOOKUP, self._looked_up())
        self.answers.expect(awaited)
        self.to_server.append(treatments.lookup(numbers, LOOKUP, request.head.client_id))

    def _looked_up(self) -> Rewrite:
        def then() -> None:
            self._waits = False
            self._resumes = True

        return treatments.looked_up(self._known, then)

    def _forward(self, request: Request, asked: Asked, panel: Panel) -> None:
        """All topics that are known are allowed."""
        at, session = request.head, asked.session
        treatment = self._treatment(request)
        topics = list(asked.subjects)
        if any(one.all for one in topics) and self._post.hide_topics:
            treatment = treatments.hiding(at.key, at.version, self._known, panel.is_allowed)
        if session is not None:
            if session.is_incremental:
                topics += [one for one in self._known.session(session.number) or () if one not in topics]
                self._known.extend(session.number, asked.subjects)
            else:
                self._known.forget(session.number)
            if session.epoch == 0 and at.key == FETCH:
                treatment = treatments.opening(at.version, self._known, topics)
            elif session.epoch == 0 and at.key == SHARE_FETCH:
                self._known.extend(session.number, topics)
        self._witness.judged(at, topics, self._scope, panel)
        request.told = len(asked.subjects)
        self._expect(request, treatment)

    def _risk(self, request: Request, piece: memoryview) -> None:
        """A request too large to be kept goes on its way while its topics are allowed. At one that is not, the rest is
        thrown away: the server does nothing with a part, and this was its last request."""
        subjects, is_all = request.subjects()
        panel, more = self._panel(request), subjects[request.told :]
        if all(map(panel.is_allowed, more)):
            if more:
                self._witness.judged(request.head, more, self._scope, panel)
            request.told = len(subjects)
            self.to_server.append(piece)
            self._mode = Mode.PASS if is_all else Mode.RISK
            return
        assert self._awaited is not None
        self._awaited.never = True
        self._mode = Mode.GATHER
        self._conclude = self._abort

    # --- refusing ---

    def _gather(self, request: Request, piece: memoryview) -> None:
        """Keep the request, if its answer needs that."""
        if not request.is_large:
            request.hold(piece)
        elif request.is_known and replies.needs_body(request) and not request.has_skeleton:
            self._give_up(request, Reason.TOO_LARGE)

    def _refuse(self, request: Request) -> None:
        """The whole request, whatever it is about."""
        topics = request.subjects()[0] if request.is_known else []
        reason = self._scope.reason or Reason.API_DENIED
        try:
            denial = replies.denied(request)
        except Unanswerable:
            self._witness.refused(request.head, topics, reason)
            self._finishing = True
            return
        silent = request.expects_answer() is False
        self._witness.refused(request.head, topics, reason, 0 if silent else denial.code)
        self._answer(request, denial.frame)

    def _refuse_topics(self, request: Request) -> None:
        """The whole request, because of some of its topics."""
        panel = self._panel(request)
        is_silent = request.expects_answer() is False
        self._witness.undone(request.head, request.subjects()[0], panel, is_silent=is_silent)
        try:
            self._answer(request, replies.denied_by_topic(request, panel))
        except Unanswerable:
            self._finishing = True

    def _abort(self, request: Request) -> None:
        """The request, part of which the server has and will never see the end of."""
        self._refuse_topics(request)
        self._finishing = True

    def _restart(self, request: Request) -> None:
        """A request to fetch in a session of which nobody knows what it holds, or that holds what is not allowed."""
        session = request.session()
        assert session is not None
        self._known.forget(session.number)
        self.answers.give(replies.session_gone(request))

    def _split(self, request: Request) -> None:
        """Forward the allowed topics; the answer will have the others with their errors."""
        panel = self._panel(request)
        is_silent = request.expects_answer() is False
        part = replies.part(request, panel)
        self._witness.judged(request.head, request.subjects()[0], self._scope, panel, is_silent=is_silent)
        self.to_server.append(part.frame)
        if is_silent:
            self._finishing = True  # as brokers do: there is no answer, so the client must notice otherwise
        else:
            self._expect(request, part.treatment)

    def _answer(self, request: Request, reply: bytes) -> None:
        if request.expects_answer() is False:
            self._finishing = True  # likewise
        else:
            self.answers.give(reply)

    def _malformed(self, request: Request) -> None:
        if self._mode in (Mode.PASS, Mode.RISK):
            self._break(Reason.MALFORMED)  # the server has a part of it
        else:
            self._give_up(request, Reason.MALFORMED)

    def _give_up(self, request: Request, reason: Reason) -> None:
        """What cannot be answered ends the connection, when what came before is answered."""
        self._request = None
        self._witness.refused(request.head, (), reason)
        self._finishing = True

    def _close(self, reason: Reason) -> None:
        self._witness.closed(reason)
        self._finishing = True

    def _break(self, reason: Reason) -> None:
        self._witness.closed(reason)
        self._finishing = self.is_broken = True
