"""The two protocols, request by request. Each law is told for both where both know it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from tests.xds.worlds import CDS, ECDS, LDS, filters, listeners, thing, world
from xds.resources import Key, Resource
from xds.session import MAX_TYPES, WINDOW, Acked, DeltaSession, Forgotten, Nacked, ProtocolError, Send, SotwSession
from xds.snapshot import Snapshot


class Client:
    """Speaks to a session and keeps what it says."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.facts: list[Acked | Nacked | Forgotten] = []
        self.responses: list[Any] = []

    def take(self, outputs: list[Any]) -> list[Any]:
        sent = [output.message for output in outputs if isinstance(output, Send)]
        self.facts += [output for output in outputs if not isinstance(output, Send)]
        self.responses += sent
        return sent

    def world_is(self, snapshot: Snapshot) -> list[Any]:
        return self.take(self.session.on_snapshot(snapshot))

    def last(self, type_url: str) -> Any:
        return next(r for r in reversed(self.responses) if r.type_url == type_url)


class Sotw(Client):
    def __init__(self, snapshot: Snapshot | None = None) -> None:
        super().__init__(SotwSession(snapshot))

    def ask(self, type_url: str, *names: str, nonce: str = "", version: str = "") -> list[Any]:
        request = DiscoveryRequest(type_url=type_url, resource_names=names, response_nonce=nonce, version_info=version)
        return self.take(self.session.on_request(request))

    def ack(self, type_url: str, *names: str) -> list[Any]:
        return self.ask(type_url, *names, nonce=self.last(type_url).nonce)

    def nack(self, type_url: str, why: str, *names: str, nonce: str = "") -> list[Any]:
        request = DiscoveryRequest(
            type_url=type_url, resource_names=names, response_nonce=nonce or self.last(type_url).nonce
        )
        request.error_detail.message = why
        return self.take(self.session.on_request(request))


class Delta(Client):
    def __init__(self, snapshot: Snapshot | None = None) -> None:
        super().__init__(DeltaSession(snapshot))

    def ask(self, type_url: str, *names: str, drop: tuple[str, ...] = (), claims: dict[str, str] | None = None) -> Any:
        return self.take(
            self.session.on_request(
                DeltaDiscoveryRequest(
                    type_url=type_url,
                    resource_names_subscribe=names,
                    resource_names_unsubscribe=drop,
                    initial_resource_versions=claims or {},
                )
            )
        )

    def ack(self, response: Any) -> list[Any]:
        request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        return self.take(self.session.on_request(request))

    def nack(self, response: Any, why: str) -> list[Any]:
        request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        request.error_detail.message = why
        return self.take(self.session.on_request(request))


def names(response: Any) -> list[str]:
    """What a response carries."""
    if hasattr(response, "removed_resources"):
        return [r.name for r in response.resources]
    return [r.value.decode().partition("=")[0] for r in response.resources]


def keys(type_url: str, *resources: Resource) -> dict[Key, str]:
    return {r.key: r.version for r in resources if r.key.type_url == type_url}


# -- before the first world ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [Sotw, Delta])
def test_nothing_is_answered_before_there_is_a_world(client: type[Any]) -> None:
    envoy = client(None)
    assert envoy.ask(CDS) == []
    assert envoy.ask(LDS) == []
    answers = envoy.world_is(world(*listeners(a="1")))
    assert [(r.type_url, names(r)) for r in answers] == [(CDS, []), (LDS, ["a"])]


@pytest.mark.parametrize("client", [Sotw, Delta])
def test_an_empty_world_is_an_answer(client: type[Any]) -> None:
    envoy = client(world())
    assert [names(r) for r in envoy.ask(LDS)] == [[]]


# -- state of the world ----------------------------------------------------------------------------------------------


def test_sotw_the_first_request_is_answered_whatever_it_claims() -> None:
    first = Sotw(world(*listeners(a="1")))
    version = first.ask(LDS)[0].version_info
    again = Sotw(world(*listeners(a="1")))
    assert [names(r) for r in again.ask(LDS, version=version)] == [["a"]]


def test_sotw_an_ack_is_not_answered_and_a_change_is_sent_once() -> None:
    envoy = Sotw(world(*listeners(a="1")))
    envoy.ask(LDS)
    assert envoy.ack(LDS) == []
    assert envoy.world_is(world(*listeners(a="1"))) == []
    assert [names(r) for r in envoy.world_is(world(*listeners(a="2")))] == [["a"]]


def test_sotw_a_stale_nonce_says_nothing() -> None:
    envoy = Sotw(world(*listeners(a="1")))
    old = envoy.ask(LDS)[0].nonce
    envoy.ack(LDS)
    envoy.world_is(world(*listeners(a="2")))
    envoy.facts.clear()
    assert envoy.nack(LDS, "too late", nonce=old) == []
    assert envoy.facts == []


def test_sotw_one_response_is_under_way_and_the_next_says_the_newest() -> None:
    envoy = Sotw(world(*listeners(a="1")))
    envoy.ask(LDS)
    assert envoy.world_is(world(*listeners(a="2"))) == []
    assert envoy.world_is(world(*listeners(a="3"))) == []
    answers = envoy.ack(LDS)
    assert [r.resources[0].value for r in answers] == [b"a=3"]


def test_sotw_what_is_absent_is_acknowledged_as_removed() -> None:
    envoy = Sotw(world(*listeners(a="1", b="1")))
    envoy.ask(LDS)
    envoy.ack(LDS)
    envoy.world_is(world(*listeners(a="1")))
    envoy.ack(LDS)
    assert envoy.facts[-1] == Acked(LDS, keys(LDS, *listeners(a="1")), frozenset({Key(LDS, "b")}))


def test_sotw_a_nack_parks_until_the_world_changes() -> None:
    envoy = Sotw(world(*listeners(a="bad")))
    envoy.ask(LDS)
    assert envoy.nack(LDS, "no") == []
    assert envoy.facts == [Nacked(keys(LDS, *listeners(a="bad")), frozenset(), "no")]
    assert envoy.world_is(world(*listeners(a="bad"))) == []
    assert [names(r) for r in envoy.world_is(world(*listeners(a="good")))] == [["a"]]


def test_sotw_filters_are_sent_by_name_one_after_the_other_and_only_what_changed() -> None:
    envoy = Sotw(world(*filters(a="1", b="1", c="1")))
    assert [names(r) for r in envoy.ask(ECDS, "a", "b")] == [["a"]]
    assert [names(r) for r in envoy.ack(ECDS, "a", "b")] == [["b"]]
    assert [names(r) for r in envoy.ack(ECDS, "a", "b", "c")] == [["c"]]
    envoy.ack(ECDS, "a", "b", "c")
    assert [names(r) for r in envoy.world_is(world(*filters(a="1", b="2", c="1")))] == [["b"]]


def test_sotw_a_filter_that_does_not_exist_is_waited_for_in_silence() -> None:
    envoy = Sotw(world())
    assert envoy.ask(ECDS, "a") == []
    assert [names(r) for r in envoy.world_is(world(*filters(a="1")))] == [["a"]]


def test_sotw_a_nack_may_carry_new_names() -> None:
    envoy = Sotw(world(*filters(a="bad", b="1")))
    envoy.ask(ECDS, "a")
    assert envoy.nack(ECDS, "no", "a", "b") == []
    assert [names(r) for r in envoy.world_is(world(*filters(a="bad", b="1")))] == [["b"]]


def test_sotw_a_filter_that_is_gone_needs_no_acknowledgement() -> None:
    envoy = Sotw(world(*filters(a="1")))
    envoy.ask(ECDS, "a")
    envoy.ack(ECDS, "a")
    envoy.world_is(world())
    assert envoy.facts[-1] == Forgotten(frozenset({Key(ECDS, "a")}))


def test_sotw_a_name_given_up_and_asked_for_again_is_sent_again() -> None:
    """Envoy, when a listener fails to bind: its filter is asked for, given up by an empty list, and asked for anew."""
    envoy = Sotw(world(*filters(a="1")))
    assert [names(r) for r in envoy.ask(ECDS)] == [["a"]]
    envoy.ack(ECDS)
    assert [names(r) for r in envoy.ack(ECDS, "a")] == [["a"]]
    assert envoy.facts[-1] == Forgotten(frozenset({Key(ECDS, "a")}))


def test_sotw_a_request_without_nonce_begins_anew() -> None:
    envoy = Sotw(world(*listeners(a="1")))
    envoy.ask(LDS)
    envoy.ack(LDS)
    assert [names(r) for r in envoy.ask(LDS)] == [["a"]]


def test_sotw_types_are_told_in_their_order() -> None:
    envoy = Sotw(None)
    for type_url in (ECDS, LDS, CDS):
        envoy.ask(type_url, *(["a"] if type_url == ECDS else []))
    answers = envoy.world_is(world(thing(CDS, "c"), *listeners(a="1"), *filters(a="1")))
    assert [r.type_url for r in answers] == [CDS, LDS, ECDS]


# -- delta -----------------------------------------------------------------------------------------------------------


def test_delta_only_what_changed_is_sent() -> None:
    envoy = Delta(world(*listeners(a="1", b="1")))
    envoy.ack(envoy.ask(LDS)[0])
    [change] = envoy.world_is(world(*listeners(a="2", c="1")))
    assert (names(change), list(change.removed_resources)) == (["a", "c"], ["b"])
    envoy.ack(change)
    assert envoy.facts[-1] == Acked(LDS, keys(LDS, *listeners(a="2", c="1")), frozenset({Key(LDS, "b")}))


def test_delta_claims_of_an_earlier_stream_are_not_believed() -> None:
    claims = {"a": listeners(a="1")[0].version, "gone": "whatever"}
    envoy = Delta(world(*listeners(a="1")))
    [answer] = envoy.ask(LDS, claims=claims)
    assert (names(answer), list(answer.removed_resources)) == (["a"], ["gone"])


def test_delta_a_name_that_does_not_exist_is_answered_as_removed_once() -> None:
    envoy = Delta(world())
    [answer] = envoy.ask(ECDS, "a")
    assert list(answer.removed_resources) == ["a"]
    envoy.ack(answer)
    assert envoy.world_is(world()) == []
    assert [names(r) for r in envoy.world_is(world(*filters(a="1")))] == [["a"]]


def test_delta_filters_are_told_one_by_one_so_that_a_nack_names_its_culprit() -> None:
    envoy = Delta(world(*filters(a="1", b="bad")))
    answers = envoy.ask(ECDS, "a", "b")
    assert [names(r) for r in answers] == [["a"], ["b"]]
    envoy.ack(answers[0])
    envoy.nack(answers[1], "no")
    assert envoy.facts[-2:] == [
        Acked(ECDS, keys(ECDS, *filters(a="1")), frozenset()),
        Nacked(keys(ECDS, *filters(b="bad")), frozenset(), "no"),
    ]


def test_delta_a_nack_parks_until_the_resource_changes() -> None:
    envoy = Delta(world(*filters(a="bad")))
    assert envoy.nack(envoy.ask(ECDS, "a")[0], "no") == []
    assert envoy.world_is(world(*filters(a="bad"))) == []
    assert [names(r) for r in envoy.world_is(world(*filters(a="good")))] == [["a"]]


def test_delta_no_more_than_a_window_is_under_way() -> None:
    many = {f"f{i:03}": "1" for i in range(WINDOW + 10)}
    envoy = Delta(world(*filters(**many)))
    first = envoy.ask(ECDS, *many)
    assert len(first) == WINDOW
    rest = [response for sent in first for response in envoy.ack(sent)]
    assert len(rest) == 10
    assert {name for r in (*first, *rest) for name in names(r)} == set(many)


def test_delta_who_subscribes_again_is_sent_again() -> None:
    envoy = Delta(world(*filters(a="1")))
    envoy.ack(envoy.ask(ECDS, "a")[0])
    assert [names(r) for r in envoy.ask(ECDS, "a")] == [["a"]]
    assert envoy.facts[-1] == Forgotten(frozenset({Key(ECDS, "a")}))


def test_delta_a_late_ack_of_what_was_given_up_meanwhile_says_nothing() -> None:
    """Envoy, when a listener fails to bind: its filter is asked for, given up, ACKed late and asked for anew."""
    envoy = Delta(world(*filters(a="1")))
    [answer] = envoy.ask(ECDS, "a")
    envoy.ask(ECDS, drop=("a",))
    envoy.ack(answer)
    assert envoy.facts[-1] == Acked(ECDS, {}, frozenset())
    assert [names(r) for r in envoy.ask(ECDS, "a")] == [["a"]]


def test_delta_unsubscribed_is_not_sent() -> None:
    envoy = Delta(world(*filters(a="1", b="1")))
    for answer in envoy.ask(ECDS, "a", "b"):
        envoy.ack(answer)
    assert envoy.ask(ECDS, drop=("a",)) == []
    assert [names(r) for r in envoy.world_is(world(*filters(a="2", b="2")))] == [["b"]]


def test_delta_unsubscribing_a_name_while_wildcard_tells_it_again() -> None:
    envoy = Delta(world(*listeners(a="1")))
    envoy.ack(envoy.ask(LDS, "*", "a")[0])
    assert [names(r) for r in envoy.ask(LDS, drop=("a",))] == [["a"]]


def test_delta_an_unknown_nonce_answers_nothing_but_its_names_count() -> None:
    envoy = Delta(world(*filters(a="1")))
    request = DeltaDiscoveryRequest(type_url=ECDS, response_nonce="never", resource_names_subscribe=["a"])
    assert [names(r) for r in envoy.take(envoy.session.on_request(request))] == [["a"]]
    assert not any(isinstance(fact, Acked) for fact in envoy.facts)


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [Sotw, Delta])
def test_a_client_may_not_ask_for_endless_types(client: type[Any]) -> None:
    envoy = client(world())
    for number in range(MAX_TYPES):
        envoy.ask(f"type{number}", "a")
    with pytest.raises(ProtocolError, match="16 resource types"):
        envoy.ask("one more", "a")


@pytest.mark.parametrize("client", [Sotw, Delta])
def test_a_request_without_type_is_refused(client: type[Any]) -> None:
    with pytest.raises(ProtocolError, match="type_url"):
        client(world()).ask("")


@pytest.mark.parametrize("client", [Sotw, Delta])
def test_nonces_rise_and_versions_are_set(client: type[Any]) -> None:
    envoy = client(world(*listeners(a="1"), *filters(a="1")))
    sent = [*envoy.ask(LDS), *envoy.ask(ECDS, "a"), *envoy.ask(CDS)]
    assert [int(r.nonce) for r in sent] == sorted({int(r.nonce) for r in sent})
    assert all(getattr(r, "version_info", "") or getattr(r, "system_version_info", "") for r in sent)
