"""The strict parse of errands to Kafka brokers: plain YAML data to conformance.errand values. Pure.

An errand in which one of VARIED is a list stands for every combination.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from conformance.errand import DENIED, KAFKA_PORT, Courier, Ending, Errand, Job
from conformance.errors import SuiteError
from conformance.fields import Fields
from conformance.parse_probe import parse_flow, parse_target
from conformance.scenario import EGRESS, FAMILIES, INGRESS

VARIED = ("from", "to", "ip", "job", "courier")  # a list: one errand per entry
BY_HAND = (Job.CREATE, Job.DELETE)
BY_LIBRDKAFKA = (Job.CONSUME_848,)


def parse_errands(value: Any, path: str) -> Iterator[Errand]:
    """The errands that one entry stands for. Raises SuiteError."""
    entry = Fields.of(value, path).value
    varied = [name for name in VARIED if isinstance(entry.get(name), list)]
    for choice in itertools.product(*(entry[name] for name in varied)):
        yield _errand(Fields({"port": KAFKA_PORT, **entry, **dict(zip(varied, choice, strict=True))}, path))


def _errand(fields: Fields) -> Errand:
    job = Job(fields.choice("job", tuple(Job)))
    errand = Errand(
        source=fields.take("from", str),
        broker=parse_target(fields),
        job=job,
        expect=Ending(fields.choice("expect", tuple(Ending))),
        topics=fields.names("topics", []),
        refused=fields.names("refused", []),
        courier=Courier(fields.choice("courier", tuple(Courier), Courier.LIBRDKAFKA.value)),
        family=fields.choice("ip", FAMILIES, 4),
        client_id=fields.take("client_id", str, ""),
        group=fields.take("group", str, ""),
        error=fields.take("error", str, DENIED),
        at_key=fields.take("at_key", str, "metadata"),
        sees=fields.names("sees", []),
        hidden=fields.names("hidden", []),
        by=fields.take("by", str, ""),
        at=fields.names("at", [INGRESS]),
        flows=tuple(parse_flow(f, f"{fields.path}.flows[{n}]") for n, f in enumerate(fields.take("flows", list, []))),
        unwatched=fields.take("unwatched", bool, False),
    )
    fields.done()
    _check(errand, fields.path)
    return errand


def _check(errand: Errand, path: str) -> None:
    if not errand.at or any(direction not in (INGRESS, EGRESS) for direction in errand.at):
        raise SuiteError(f"{path}.at", f"must name {INGRESS} or {EGRESS}")
    if not errand.topics and errand.job is not Job.LIST:
        raise SuiteError(f"{path}.topics", "are missing")
    if not set(errand.refused) <= set(errand.topics):
        raise SuiteError(f"{path}.refused", "names a topic that is not among topics")
    if errand.job in BY_LIBRDKAFKA and errand.courier is not Courier.LIBRDKAFKA:
        raise SuiteError(f"{path}.courier", f"only {Courier.LIBRDKAFKA} can {errand.job}")
    if errand.courier is Courier.BY_HAND and errand.job not in BY_HAND:
        raise SuiteError(f"{path}.courier", f"only {' and '.join(BY_HAND)} are done by hand")
