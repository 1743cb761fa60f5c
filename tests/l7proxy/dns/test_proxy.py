"""The proxy with real sockets: a pod asks a server in the world, and neither notices that the proxy is in between."""

from __future__ import annotations

import random
import socket
import threading
import time
from itertools import pairwise

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from l7proxy.dns.configuration import Configuration, ConfigurationError
from l7proxy.dns.framing import frame
from l7proxy.dns.judge import Reason
from l7proxy.dns.proxy import DnsProxy, Settings
from policies.ir import DnsRule, Listening
from policies.types import Protocol
from tests.bpf.galaxy import inside
from tests.l7proxy.dns.make import slot
from tests.l7proxy.dns.town import (
    NOBODY4,
    NOBODY6,
    PER_POD,
    RULES,
    SERVERS,
    UDP_PORT,
    Town,
    answer_with,
    ask,
    read_frame,
    wait,
)

pytestmark = pytest.mark.privileged

FAMILIES = pytest.mark.parametrize("family", [4, 6])
ALLOWED = "allowed.example.org"
ADDRESS = bytes((192, 0, 2, 7))


def rcode(message: bytes) -> str:
    return dns.rcode.to_text(dns.message.from_wire(message).rcode())


class TestEveryDay:
    @FAMILIES
    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    def test_an_allowed_name_is_answered_and_learned(self, town: Town, family: int, transport: str) -> None:
        asked = ask(ALLOWED)
        reply = town.udp(family, asked) if transport == "udp" else town.tcp(family, asked)[0]
        assert "192.0.2.7" in dns.message.from_wire(reply).to_text()
        assert reply[:2] == asked[:2]
        assert [(one.name, one.addresses, one.ttl) for one in town.world.names] == [(f"{ALLOWED}.", (ADDRESS,), 30)]
        request, response = town.world.records
        assert (request.is_response, response.is_response) == (False, True)
        assert (request.decision.rule, request.reason, response.reason) == (RULES[0], None, None)
        assert request.decision.slot is not None
        assert request.decision.slot.name == f"egress:4711:{transport}:53"
        assert response.decision == request.decision
        assert request.client.server == SERVERS[family]
        assert response.gist.addresses == (ADDRESS,)
        assert 0 < response.latency < 5

    @FAMILIES
    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    def test_the_server_is_asked_by_the_pod_itself(self, town: Town, family: int, transport: str) -> None:
        town.udp(family, ask(ALLOWED)) if transport == "udp" else town.tcp(family, ask(ALLOWED))
        assert [address for address, _ in town.asked_from] == [town.pod.address(family)]

    @FAMILIES
    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    def test_another_name_is_refused_and_the_server_never_hears_of_it(
        self, town: Town, family: int, transport: str
    ) -> None:
        asked = ask("Evil.Example.com")
        reply = town.udp(family, asked) if transport == "udp" else town.tcp(family, asked)[0]
        assert rcode(reply) == "REFUSED"
        assert reply[12 : len(asked) - 12] == asked[12 : len(asked) - 12]
        assert town.asked == []
        assert [(r.is_response, r.reason) for r in town.world.records] == [(False, Reason.NAME_DENIED)]

    def test_or_does_not_exist_by_configuration(self, town: Town) -> None:
        town.apply(rejection="nameError")
        assert rcode(town.udp(4, ask("evil.example.com"))) == "NXDOMAIN"

    def test_case_and_bytes_are_left_alone(self, town: Town) -> None:
        asked = ask("aLLoWeD.eXample.ORG", use_edns=0, payload=4096, want_dnssec=True)
        replies: list[bytes] = []

        def answer(message: bytes, over_tcp: bool) -> bytes:
            made = answer_with("192.0.2.7")(message, over_tcp)
            assert isinstance(made, bytes)
            replies.append(made)
            return made

        town.answer = answer
        reply = town.udp(4, asked)
        assert town.asked[0][2:] == asked[2:]
        assert reply[2:] == replies[0][2:]
        assert reply[:2] == asked[:2]

    @pytest.mark.parametrize("code", [2, 3, 5])
    def test_what_the_server_says_is_passed_on(self, town: Town, code: int) -> None:
        def answer(message: bytes, _: bool) -> bytes:
            reply = dns.message.make_response(dns.message.from_wire(message))
            reply.set_rcode(dns.rcode.Rcode(code))
            return reply.to_wire()

        town.answer = answer
        assert rcode(town.udp(4, ask(ALLOWED))) == dns.rcode.to_text(dns.rcode.Rcode(code))
        assert (town.last().reason, town.last().rcode) == (None, code)
        assert town.world.names == []

    def test_every_question_of_a_message_is_judged(self, town: Town) -> None:
        two = ask(ALLOWED, use_edns=False)
        two = two[:4] + b"\0\2" + two[6:] + b"\4evil\3org\0\0\1\0\1"
        assert town.udp(4, two)[3] & 0xF == 5
        assert town.last().reason is Reason.NAME_DENIED


class TestLargeAnswers:
    @FAMILIES
    @pytest.mark.parametrize("count", [30, 80, 240])  # below a packet, beyond one, beyond three
    def test_large_answers_over_udp(self, town: Town, family: int, count: int) -> None:
        addresses = [f"10.1.{n >> 8}.{n & 255}" for n in range(count)]
        town.answer = answer_with(*addresses)
        reply = dns.message.from_wire(town.udp(family, ask("big.example.org", use_edns=0, payload=4096)))
        assert len(reply.answer[0]) == count
        assert len(town.world.names[0].addresses) == count

    def test_a_truncated_answer_sends_the_resolver_to_tcp(self, town: Town) -> None:
        many = answer_with(*[f"10.1.0.{n}" for n in range(200)])

        def answer(message: bytes, over_tcp: bool) -> bytes | list[bytes] | None:
            if over_tcp:
                return many(message, True)
            reply = dns.message.make_response(dns.message.from_wire(message))
            reply.flags |= dns.flags.TC
            return reply.to_wire()

        town.answer = answer
        first = dns.message.from_wire(town.udp(4, ask("big.example.org")))
        assert first.flags & dns.flags.TC
        assert town.world.names == []
        second = dns.message.from_wire(town.tcp(4, ask("big.example.org"))[0])
        assert len(second.answer[0]) == 200

    def test_the_largest_message_over_tcp(self, town: Town) -> None:
        def answer(message: bytes, _: bool) -> bytes:
            reply = message[:2] + b"\x81\x80\0\1\0\0\0\0\0\1" + message[12:]
            filler = 65535 - len(reply) - 11
            return reply + b"\0\0\x10\0\1\0\0\0\0" + filler.to_bytes(2, "big") + bytes(filler)

        town.answer = answer
        assert len(town.tcp(4, ask(ALLOWED, use_edns=False))[0]) == 65535


class TestTcp:
    def test_many_queries_at_once_answered_in_any_order(self, town: Town) -> None:
        held: list[bytes] = []

        def answer(message: bytes, _: bool) -> list[bytes]:
            held.append(message)
            if len(held) < 5:
                return []
            made = [answer_with("192.0.2.7")(one, True) for one in reversed(held)]
            return [one for one in made if isinstance(one, bytes)]

        town.answer = answer
        asked = [ask(f"n{i}.open.example.org", id=100 + i % 2) for i in range(5)]  # ids may be the same
        replies = town.tcp(4, *asked)
        questions = [str(dns.message.from_wire(reply).question[0].name) for reply in replies]
        assert questions == [f"n{i}.open.example.org." for i in (4, 3, 2, 1, 0)]
        assert [reply[:2] for reply in replies] == [asked[i][:2] for i in (4, 3, 2, 1, 0)]
        assert len(set(town.asked_from)) == 1

    def test_more_than_may_be_open_are_read_one_after_the_other(self, town: Town) -> None:
        asked = [ask(f"n{i}.open.example.org") for i in range(300)]
        assert len(town.tcp(4, *asked)) == 300
        assert {record.reason for record in town.world.records} == {None}

    def test_byte_by_byte(self, town: Town) -> None:
        connection = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in frame(ask(ALLOWED)):
                connection.send(bytes((byte,)))
            assert rcode(read_frame(connection)) == "NOERROR"

    def test_who_has_said_all_is_still_answered(self, town: Town) -> None:
        connection = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
        with connection:
            connection.sendall(frame(ask(ALLOWED)))
            connection.shutdown(socket.SHUT_WR)
            assert rcode(read_frame(connection)) == "NOERROR"
            assert connection.recv(1) == b""

    def test_a_zone_transfer_is_passed_on_message_by_message(self, town: Town) -> None:
        town.apply((DnsRule("example.org."),), query_timeout=0.5)
        town.answer = lambda message, _: [message[:2] + b"\x84\0" + message[4:12] + message[12:]] * 3
        connection = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
        asked = ask("example.org", "AXFR", use_edns=False)
        with connection:
            connection.sendall(frame(asked))
            assert [read_frame(connection)[:2] for _ in range(3)] == [asked[:2]] * 3

    def test_a_large_zone_waits_for_a_slow_reader(self, town: Town) -> None:
        """16 MB, while the pod's socket takes little: the server is slowed down, and nothing is lost."""
        town.apply((DnsRule("example.org."),), query_timeout=2.0)
        filler = b"\0\0\x10\0\1\0\0\0\0\x9c\x40" + bytes(40_000)
        town.answer = lambda message, _: [message[:2] + b"\x84\0\0\1\0\1\0\0\0\0" + message[12:] + filler] * 400
        with inside(town.pod.namespace):
            connection = socket.socket()
        with connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(5.0)
            connection.connect((SERVERS[4], 53))
            connection.sendall(frame(ask("example.org", "AXFR", use_edns=False)))
            assert sum(len(read_frame(connection)) for _ in range(400)) > 16_000_000

    def test_a_server_that_closes_owes_an_answer(self, town: Town) -> None:
        def answer(message: bytes, over_tcp: bool) -> bytes | None:
            raise EOFError

        town.answer = answer
        assert rcode(town.tcp(4, ask(ALLOWED))[0]) == "SERVFAIL"
        assert town.last().reason is Reason.UNREACHABLE
        town.answer = answer_with("192.0.2.7")
        assert rcode(town.tcp(4, ask(ALLOWED))[0]) == "NOERROR"

    def test_a_length_that_leads_nowhere_ends_the_connection(self, town: Town) -> None:
        connection = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
        with connection:
            connection.sendall(b"\0\3abc")
            assert connection.recv(1) == b""


class TestServersThatFail:
    @pytest.mark.parametrize(("family", "server"), [(4, NOBODY4), (6, NOBODY6)])
    def test_nobody_listens(self, town: Town, family: int, server: str) -> None:
        with town.client(family, server) as client:
            client.send(ask(ALLOWED))
            assert rcode(client.recv(4096)) == "SERVFAIL"
        assert town.last().reason is Reason.UNREACHABLE
        with town.galaxy.connect(town.pod.namespace, (server, 53)) as connection:
            connection.sendall(frame(ask(ALLOWED)))
            assert rcode(read_frame(connection)) == "SERVFAIL"

    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    def test_a_server_that_says_nothing_is_given_up_without_a_word(self, town: Town, transport: str) -> None:
        town.apply(query_timeout=0.2)
        town.answer = lambda *_: None
        if transport == "udp":
            with pytest.raises(TimeoutError):
                town.udp(4, ask(ALLOWED), timeout=1.0)
        else:
            with town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53), timeout=1.0) as connection:
                connection.sendall(frame(ask(ALLOWED)))
                with pytest.raises(TimeoutError):
                    read_frame(connection)
        assert (town.last().is_response, town.last().reason) == (True, Reason.TIMEOUT)
        assert town.proxy is not None
        assert town.proxy.open_queries == 0

    def test_an_answer_that_cannot_be_read(self, town: Town) -> None:
        town.answer = lambda message, _: message[:2] + b"\x81\x80\0\1\0\7\0\0\0\0" + message[12:]
        assert rcode(town.udp(4, ask(ALLOWED, use_edns=False))) == "SERVFAIL"
        assert town.last().reason is Reason.BAD_ANSWER

    def test_an_answer_about_another_name(self, town: Town) -> None:
        def answer(message: bytes, _: bool) -> bytes:
            reply = dns.message.make_response(dns.message.from_wire(message))
            reply.answer.append(dns.rrset.from_text("bank.com.", 30, "IN", "A", "192.0.2.66"))
            return reply.to_wire()

        town.answer = answer
        assert rcode(town.udp(4, ask(ALLOWED))) == "SERVFAIL"
        assert town.last().reason is Reason.FOREIGN_ANSWER
        assert town.world.names == []


class TestForgers:
    def test_answers_of_another_id_or_question_are_overheard(self, town: Town) -> None:
        right = answer_with("192.0.2.7")
        wrong = answer_with("192.0.2.66")

        def answer(message: bytes, over_tcp: bool) -> list[bytes]:
            forged_id = (int.from_bytes(message[:2], "big") ^ 1).to_bytes(2, "big") + message[2:]
            forged_name = message.replace(b"\7allowed", b"\7aIlowed")
            made = [wrong(forged_id, over_tcp), wrong(forged_name, over_tcp), b"x", right(message, over_tcp)]
            return [one for one in made if isinstance(one, bytes)]

        town.answer = answer
        assert "192.0.2.7" in dns.message.from_wire(town.udp(4, ask(ALLOWED))).to_text()
        assert [one.addresses for one in town.world.names] == [(ADDRESS,)]

    def test_only_the_server_is_heard(self, town: Town) -> None:
        """Another machine knows everything, and sends the answer first."""
        seen: list[str] = []
        liar = town.galaxy.udp(town.galaxy.world, NOBODY4, 53)

        def answer(message: bytes, over_tcp: bool) -> bytes | list[bytes] | None:
            lie = answer_with("192.0.2.66")(message, over_tcp)
            assert isinstance(lie, bytes)
            liar.sendto(lie, town.asked_from[-1])
            seen.append("lie")
            return answer_with("192.0.2.7")(message, over_tcp)

        town.answer = answer
        try:
            assert "192.0.2.7" in dns.message.from_wire(town.udp(4, ask(ALLOWED))).to_text()
            assert seen == ["lie"]
            assert [one.addresses for one in town.world.names] == [(ADDRESS,)]
        finally:
            liar.close()

    def test_ids_and_ports_are_other_ones_each_time(self, town: Town) -> None:
        with town.client(4) as client:
            for _ in range(40):
                client.send(ask(ALLOWED, id=7))
                client.recv(4096)
        ids = [int.from_bytes(message[:2], "big") for message in town.asked]
        ports = [port for _, port in town.asked_from]
        assert len(set(ids)) > 35
        assert len(set(ports)) > 35
        assert len({later - earlier & 0xFFFF for earlier, later in pairwise(ports)}) > 20

    def test_hostile_messages_change_nothing_for_others(self, town: Town) -> None:
        source = random.Random(20260101)
        good = ask("www.open.example.org", use_edns=True)
        with town.client(4) as client:
            for n in range(500):
                message = bytearray(good) if n % 2 else bytearray(source.randbytes(source.randrange(200)))
                for _ in range(source.randrange(1, 8)):
                    if message:
                        message[source.randrange(len(message))] = source.randrange(256)
                client.send(bytes(message))
        wait(lambda: len(town.world.records) >= 500, "the last hostile message")
        assert rcode(town.udp(4, ask(ALLOWED))) == "NOERROR"
        for message in (b"\0" * 12, source.randbytes(40), good[:20]):
            connection = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
            with connection:
                connection.sendall(frame(message) + frame(ask(ALLOWED)))
                connection.recv(4096)
        assert rcode(town.tcp(4, ask(ALLOWED))[0]) == "NOERROR"

    def test_what_cannot_be_read_is_a_format_error_and_answers_are_not_answered(self, town: Town) -> None:
        with town.client(4) as client:
            client.send(ask(ALLOWED)[:-5])
            assert client.recv(4096)[3] & 0xF == 1
            assert town.last().reason is Reason.MALFORMED
            client.settimeout(0.3)
            client.send(b"\0\7\x81\x80" + bytes(8))
            with pytest.raises(TimeoutError):
                client.recv(4096)


class TestBounds:
    def test_a_repetition_is_sent_on_but_opens_nothing(self, town: Town) -> None:
        town.answer = lambda *_: None
        assert town.proxy is not None
        asked = ask(ALLOWED)
        with town.client(4) as client:
            for _ in range(3):
                client.send(asked)
            wait(lambda: len(town.asked) == 3, "the repetitions")
            assert town.proxy.open_queries == 1
            assert len(set(town.asked)) == 1
            town.apply(query_timeout=0.1)
            town.answer = answer_with("192.0.2.7")
            client.send(asked)
            assert rcode(client.recv(4096)) == "NOERROR"

    def test_a_pod_that_floods_is_told_so(self, town: Town) -> None:
        town.apply(query_timeout=0.5)
        town.answer = lambda *_: None
        with town.client(4) as client:
            for n in range(PER_POD + 10):
                client.send(ask(f"n{n}.open.example.org"))
            assert [rcode(client.recv(4096)) for _ in range(10)] == ["SERVFAIL"] * 10
        assert sum(record.reason is Reason.OVERLOAD for record in town.world.records) == 10

    def test_who_speaks_to_the_proxy_itself_is_not_heard(self, town: Town) -> None:
        assert town.proxy is not None
        with inside(town.galaxy.node), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(ask(ALLOWED), ("127.0.0.1", UDP_PORT))
            wait(lambda: town.proxy is not None and "sent to the proxy itself" in town.proxy.counted, "the count")
        assert town.asked == []


class TestHeldAnswers:
    def test_an_answer_waits_until_its_addresses_are_in_force(self, town: Town) -> None:
        town.world.gated = True
        with town.client(4) as client:
            client.send(ask(ALLOWED))
            wait(lambda: bool(town.world.waiting), "the learned name")
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.recv(4096)
            town.on_loop(lambda _: town.world.waiting[0].set_result(True))
            client.settimeout(5.0)
            assert rcode(client.recv(4096)) == "NOERROR"

    @pytest.mark.parametrize(("late", "code"), [(False, "SERVFAIL"), (True, "NOERROR")])
    def test_but_not_for_ever(self, town: Town, late: bool, code: str) -> None:
        town.apply(hold_limit=0.1, release_late=late)
        town.world.gated = True
        assert rcode(town.udp(4, ask(ALLOWED))) == code
        assert town.last().reason is (None if late else Reason.HELD_TOO_LONG)
        wait(lambda: town.world.waiting[0].cancelled(), "the end of the wait")

    def test_addresses_that_cannot_be_opened_are_not_told(self, town: Town) -> None:
        town.world.gated = True
        with town.client(4) as client:
            for end in ("refused", "failed"):
                client.send(ask(ALLOWED))
                wait(lambda: bool(town.world.waiting), "the learned name")
                waiting = town.world.waiting.pop()
                if end == "refused":
                    town.on_loop(lambda _, w=waiting: w.set_result(False))
                else:
                    town.on_loop(lambda _, w=waiting: w.set_exception(OSError("no agent")))
                assert rcode(client.recv(4096)) == "SERVFAIL"
                assert town.last().reason is Reason.NOT_OPENED

    def test_an_answer_without_addresses_waits_for_nothing(self, town: Town) -> None:
        town.world.gated = True
        town.answer = answer_with()
        assert rcode(town.udp(4, ask(ALLOWED))) == "NOERROR"


class TestConfiguration:
    def test_rules_are_swapped_whole_and_at_once(self, town: Town) -> None:
        connection = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
        with connection:
            connection.sendall(frame(ask(ALLOWED)))
            assert rcode(read_frame(connection)) == "NOERROR"
            town.apply((DnsRule("other.org."),))
            connection.sendall(frame(ask(ALLOWED)))
            assert rcode(read_frame(connection)) == "REFUSED"
            connection.sendall(frame(ask("other.org")))
            assert rcode(read_frame(connection)) == "NOERROR"

    def test_what_cannot_be_applied_changes_nothing(self, town: Town) -> None:
        assert town.proxy is not None
        before = town.proxy.configuration
        with inside(town.galaxy.node):
            taken = socket.create_server(("0.0.0.0", 15999))
        with taken:
            wish = Configuration((Listening(slot("a"), 15998), Listening(slot("b", Protocol.TCP), 15999)))
            with pytest.raises(ConfigurationError, match="slot b: cannot listen on TCP port 15999"):
                town.on_loop(lambda proxy: proxy.apply(wish))
        assert town.proxy.configuration is before
        assert rcode(town.udp(4, ask(ALLOWED))) == "NOERROR"

    def test_the_connections_of_a_slot_that_goes_end_with_the_answers_that_are_due(self, town: Town) -> None:
        """Its port may soon be another slot's: nothing that comes later is judged by rules that are not its own."""
        released = threading.Event()

        def slowly(message: bytes, over_tcp: bool) -> object:
            assert released.wait(5)
            return answer_with("192.0.2.7")(message, over_tcp)

        town.answer = slowly  # type: ignore[assignment]
        idle = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
        busy = town.galaxy.connect(town.pod.namespace, (SERVERS[4], 53))
        with idle, busy:
            busy.sendall(frame(ask(ALLOWED)))
            wait(lambda: bool(town.asked), "the question at the server")
            town.on_loop(lambda proxy: proxy.apply(Configuration()))
            idle.settimeout(5)
            assert idle.recv(1) == b""
            busy.sendall(frame(ask(ALLOWED)))
            released.set()
            assert rcode(read_frame(busy)) == "NOERROR"
            with pytest.raises(ConnectionResetError):  # and no second answer
                busy.recv(1)

    def test_workers_share_ports_and_others_do_not(self, town: Town) -> None:
        wiring = (town.world, town.world)
        wish = Configuration((Listening(slot("a"), 15990), Listening(slot("b", Protocol.TCP), 15990)))

        def live_together(_: object) -> None:
            workers = [DnsProxy(*wiring, Settings(shared=True)) for _ in range(2)]
            stranger = DnsProxy(*wiring)
            for worker in workers:
                worker.start()
                worker.apply(wish)
            stranger.start()
            for one in wish.listening:
                with pytest.raises(ConfigurationError, match="cannot listen on"):
                    stranger.apply(Configuration((one,)))
            for proxy in (*workers, stranger):
                proxy.stop()

        town.on_loop(live_together)

    def test_a_server_of_the_host_itself_is_left_alone(self, town: Town) -> None:
        """Answers come from the server's address without binding it: a local cache keeps its port and its packets."""
        with inside(town.galaxy.node):
            cache = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with cache:
            cache.bind(("0.0.0.0", 53))
            assert rcode(town.udp(4, ask(ALLOWED))) == "NOERROR"
            cache.settimeout(0.05)
            with pytest.raises(TimeoutError):
                cache.recv(100)


def test_nothing_is_left_open(town: Town) -> None:
    for _ in range(50):
        town.udp(4, ask(ALLOWED))
        town.tcp(4, ask(ALLOWED))
    end = time.monotonic() + 5
    while town.on_loop(lambda proxy: len(proxy._station.connections) + len(proxy._station.upstreams)):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert town.on_loop(lambda proxy: dict(proxy._station.pods)) == {}
