"""Access-log entries turned into flows, per second of one core: parse, decode, pair, build, append to the ring.

CPU time of one thread, so that neighbours on a shared core do not count. What is measured is the intake that the agent
hands every message of the access-log stream to, as it works while somebody reads: everything is built as it arrives.
Most entries make two flows, which `built_flows_per_second` counts. `entries_per_second_unread` is the pace while nobody
reads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from benchmarks.errors import NotMeasured
from benchmarks.samples import in_turns, medians
from benchmarks.stage import Stage
from benchmarks.traffic import BATCH, CLIENTS, PORT, SERVERS, messages
from flows.intake import Intake
from flows.lookups import NO_REASON, EndpointRef, Lookups, PolicyRef, Reason, ServiceRef, WorkloadRef
from flows.record import HttpRecord, PacketRecord, Parsed, TlsRefusal
from flows.ring import Ring
from flows.tally import Count, Tally, Use
from flows.uuids import uuids

ROUNDS, MESSAGES = 9, 200
ENTRIES = MESSAGES * BATCH  # per round
LEGS = ("read", "unread")
RULE = "CiliumNetworkPolicy default/shop spec.ingress[0].toPorts[0].rules.http[0] (GET /api/v1/.*)"


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark; needs no galaxy."""
    stage.note("intake: access-log entries to flows")
    wire = messages(random.Random(2), MESSAGES)
    seconds: dict[str, list[float]] = {leg: [] for leg in LEGS}
    intakes = {leg: _intake(reading=leg == "read") for leg in LEGS}
    for intake in intakes.values():
        _seconds(intake, wire)
    flows = _flows_of_a_round(intakes["read"])
    for _, leg in in_turns(LEGS, ROUNDS):
        seconds[leg].append(_seconds(intakes[leg], wire))
    spent = medians(seconds)
    return {
        "flows_per_second": ENTRIES / spent["read"],
        "built_flows_per_second": flows / spent["read"],
        "entries_per_second_unread": ENTRIES / spent["unread"],
    }


def _seconds(intake: Intake, wire: list[bytes]) -> float:
    """CPU seconds of this thread for all messages."""
    before = time.thread_time()
    for message in wire:
        intake.access_log(message)
    return time.thread_time() - before


def _flows_of_a_round(intake: Intake) -> int:
    """How many flows all messages have made. Raises NotMeasured unless every entry became one at least."""
    flows = intake.ring.flows_seen
    if intake.malformed or flows < ENTRIES:
        raise NotMeasured(f"{ENTRIES} entries made {flows} flows, {intake.malformed} malformed: {intake.complaint}")
    return flows


def _intake(*, reading: bool) -> Intake:
    town = Town()
    made = Intake(Ring(), lambda: town, version="0.0.0", now_ns=time.time_ns, new_uuid=uuids().__next__)
    made.reading = reading
    made.tally = Tally(Nobody())
    return made


class Nobody:
    """A book of rules that keeps nothing."""

    def requests(self, view: Lookups, uses: Sequence[tuple[Use, Count]]) -> None:
        return

    def packets(self, view: Lookups, records: Sequence[PacketRecord], now_ns: int) -> None:
        return

    def parsed(self, view: Lookups, uses: Sequence[tuple[Parsed, int]], now_ns: int) -> None:
        return


class Town:
    """Who lives where: a hundred clients and eight servers, each with the labels and owners that pods have."""

    node_name = "node"

    def __init__(self) -> None:
        addresses = [*CLIENTS, *(address for address, _ in SERVERS)]
        self._endpoints = {address: _endpoint(number, address) for number, address in enumerate(addresses)}
        self._why = {
            True: Reason((PolicyRef("shop", "default", "CiliumNetworkPolicy"),), (f"allowed by {RULE}",)),
            False: Reason((), ("none of 1 HTTP rule matches: 403", f"enforced by {RULE}", f"nearest {RULE}")),
        }
        self._services = {(address, PORT): ServiceRef(name.partition(".")[0], "default") for address, name in SERVERS}

    def endpoint_by_ip(self, ip: str) -> EndpointRef | None:
        return self._endpoints.get(ip)

    def identity_by_ip(self, ip: str) -> int:
        found = self._endpoints.get(ip)
        return found.identity if found else 2

    def identity_labels(self, identity: int) -> tuple[str, ...]:
        return ("reserved:world",) if identity == 2 else ()

    def service_by_address(self, ip: str, port: int) -> ServiceRef | None:
        return self._services.get((ip, port))

    node_labels = ("kubernetes.io/hostname=n1",)

    def names_of(self, ip: str, by: str) -> tuple[str, ...]:
        return ()

    def why_request(self, record: HttpRecord) -> Reason:
        return self._why[record.denied_by is None]

    def why_parsed(self, record: Parsed) -> Reason:
        return NO_REASON

    def why_refused(self, record: TlsRefusal) -> Reason:
        return NO_REASON

    def why_packet(self, record: PacketRecord) -> Reason:
        return NO_REASON


def _endpoint(number: int, address: str) -> EndpointRef:
    app = f"app-{number % 20}"
    labels = (
        f"k8s:app={app}",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default",
        "k8s:io.kubernetes.pod.namespace=default",
        f"k8s:tier={'front' if number % 2 else 'back'}",
    )
    return EndpointRef(
        identity=4000 + number % 20,
        id=number + 1,
        namespace="default",
        pod_name=f"{app}-7d9c5bb4f8-{number:05d}",
        labels=labels,
        workloads=(WorkloadRef(app, "Deployment"),),
    )
