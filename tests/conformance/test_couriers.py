"""Real Kafka clients in pods, at a broker in another one: in both families, at the pod's address and the service's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from conformance.cast import Cast
from conformance.errand import Courier, Ending, Errand, Job
from conformance.errands import Errands
from conformance.flow_log import FlowLog
from conformance.galaxy import Galaxy, galaxy
from conformance.kafka_client import Outcome
from conformance.parse_galaxy import parse_galaxy
from conformance.target import Target

pytestmark = pytest.mark.privileged

ANNOUNCE, PLANS = "empire-announce", "deathstar-plans"
POD, SERVICE = Target("pod", "kafka", 9092), Target("service", "kafka-service", 9092)
BOTH = (Courier.LIBRDKAFKA, Courier.AIOKAFKA)


@pytest.fixture(scope="module")
def empire() -> Iterator[tuple[Galaxy, Errands]]:
    blueprint = parse_galaxy(
        {
            "pods": {
                "kafka": {"name": "kafka-broker", "labels": {"app": "kafka"}, "topics": [ANNOUNCE, PLANS]},
                "hq": {"labels": {"app": "empire-hq"}},
            },
            "services": {"kafka-service": {"port": 9092, "selector": {"app": "kafka"}}},
        },
        "couriers",
    )
    with galaxy(blueprint, prefix="dflk") as made:
        yield made, Errands(made, Cast(made), FlowLog())


def send(empire: tuple[Galaxy, Errands], errand: Errand) -> Outcome:
    done = subprocess.run(empire[1].command(errand), capture_output=True, text=True, timeout=30, check=True)
    return Outcome.of(done.stdout)


@pytest.mark.parametrize("courier", BOTH)
@pytest.mark.parametrize(("broker", "family"), [(POD, 4), (POD, 6), (SERVICE, 4), (SERVICE, 6)])
def test_what_is_written_is_read(empire: tuple[Galaxy, Errands], courier: Courier, broker: Target, family: int) -> None:
    for job in (Job.PRODUCE, Job.PRODUCE_ONCE, Job.TRANSACT, Job.PIPE, Job.FETCH, Job.CONSUME):
        errand = Errand("hq", broker, job, Ending.DIRECT, (ANNOUNCE, PLANS), courier=courier, family=family)
        outcome = send(empire, errand)
        assert not outcome.errors, f"{errand}: {outcome}"
        assert set(outcome.values) == {ANNOUNCE, PLANS}
        assert outcome.ports


def test_the_newer_group_protocol_reads_it_too(empire: tuple[Galaxy, Errands]) -> None:
    send(empire, Errand("hq", POD, Job.PRODUCE, Ending.DIRECT, (PLANS,)))
    outcome = send(empire, Errand("hq", POD, Job.CONSUME_848, Ending.DIRECT, (PLANS,)))
    assert outcome.values[PLANS] >= 1


@pytest.mark.parametrize("courier", BOTH)
def test_topics_and_offsets_are_told(empire: tuple[Galaxy, Errands], courier: Courier) -> None:
    assert send(empire, Errand("hq", POD, Job.LIST, Ending.DIRECT, courier=courier)).seen == (PLANS, ANNOUNCE)
    send(empire, Errand("hq", POD, Job.PRODUCE, Ending.DIRECT, (PLANS,)))
    assert send(empire, Errand("hq", POD, Job.OFFSETS, Ending.DIRECT, (PLANS,), courier=courier)).values[PLANS] >= 1


def test_the_broker_hangs_up_on_who_makes_topics(empire: tuple[Galaxy, Errands]) -> None:
    for job in (Job.CREATE, Job.DELETE):
        outcome = send(empire, Errand("hq", POD, job, Ending.PASSED, ("hoth",), courier=Courier.BY_HAND))
        assert outcome.errors == {"": "CLOSED"}


def test_a_client_that_repeats_answers_each_line(empire: tuple[Galaxy, Errands]) -> None:
    command = empire[1].command(Errand("hq", POD, Job.PRODUCE, Ending.DIRECT, (PLANS,)), repeats=True)
    done = subprocess.run(command, input="\n\n\n", capture_output=True, text=True, timeout=30, check=True)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [outcome["values"] for outcome in outcomes] == [{PLANS: 1}] * 3
    assert outcomes[0]["ports"] == outcomes[2]["ports"]
