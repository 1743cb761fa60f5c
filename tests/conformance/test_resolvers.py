"""Real resolvers in pods, asking a real nameserver in another: in both families, of the pod and of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from conformance.blueprint import DnsName
from conformance.cast import Cast
from conformance.galaxy import Galaxy, galaxy
from conformance.parse_galaxy import parse_galaxy
from conformance.question import Client, Question, Resolution
from conformance.resolvers import Inquiry, Reply, resolve
from conformance.target import Target

pytestmark = pytest.mark.privileged

POD, SERVICE = Target("pod", "dns", 53), Target("service", "kube-dns", 53)
GITHUB = {"v4": "203.0.113.7", "v6": "2001:db8:113::7"}


@pytest.fixture(scope="module")
def city() -> Iterator[tuple[Galaxy, Cast]]:
    blueprint = parse_galaxy(
        {
            "namespaces": {"kube-system": {}},
            "pods": {
                "bot": {"labels": {"class": "mediabot"}},
                "dns": {"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}, "resolves": True},
            },
            "hosts": {"github": GITHUB},
            "services": {
                "kube-dns": {
                    "namespace": "kube-system",
                    "port": 53,
                    "protocols": ["UDP", "TCP"],
                    "selector": {"k8s-app": "kube-dns"},
                }
            },
            "names": {
                "api.github.com": {"hosts": ["github"]},
                "alias.io": {"cname": "api.github.com"},
                "many.io": {"more": 80},
            },
        },
        "resolvers",
    )
    with galaxy(blueprint, prefix="dflr") as made:
        yield made, Cast(made)


def ask(city: tuple[Galaxy, Cast], question: Question) -> Reply:
    made, cast = city
    local = (made.address(question.source, question.family), cast.ports.take())
    remote = cast.remote(question.server, question.family)
    return asyncio.run(resolve(Inquiry(question, made.namespace(question.source), local, remote, made.folder)))


@pytest.mark.parametrize("client", Client)
@pytest.mark.parametrize(("server", "family"), [(POD, 4), (POD, 6), (SERVICE, 4), (SERVICE, 6)])
def test_each_resolver_finds_the_address_behind_an_alias(
    city: tuple[Galaxy, Cast], client: Client, server: Target, family: int
) -> None:
    question = Question("bot", server, "alias.io", Resolution.DIRECT, client, family=family)
    reply = ask(city, question)
    assert reply.rcode == "NOERROR"
    if client is Client.CURL:
        assert reply.fetched == f"200 {GITHUB[f'v{family}']}"
    else:
        assert GITHUB["v4"] in reply.addresses


@pytest.mark.parametrize("client", Client)
def test_each_resolver_says_so_when_there_is_no_such_name(city: tuple[Galaxy, Cast], client: Client) -> None:
    reply = ask(city, Question("bot", POD, "nowhere.io", Resolution.DIRECT, client))
    assert reply.rcode == ("NXDOMAIN" if client in (Client.DIG, Client.CARES) else "FAILED")


def test_eighty_addresses_do_not_fit_a_datagram(city: tuple[Galaxy, Cast]) -> None:
    reply = ask(city, Question("bot", POD, "many.io", Resolution.DIRECT))
    assert len(reply.addresses) == 80
    assert reply.arrived_by == "tcp"


def test_names_can_be_given_to_others_while_servers_run(city: tuple[Galaxy, Cast]) -> None:
    made, _ = city
    question = Question("bot", POD, "new.io", Resolution.DIRECT)
    assert ask(city, question).rcode == "NXDOMAIN"
    made.nameservers.rename(made.blueprint.names_with({"new.io": DnsName("new.io", hosts=("github",))}))
    assert ask(city, question).addresses == (GITHUB["v4"],)
