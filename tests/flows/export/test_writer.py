"""What becomes of the flows that an exporter is offered: every one of them is accounted for."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace

from flow import flow_pb2
from observer import observer_pb2

from flows.export import admission
from flows.export.config import ExporterSpec, FileSpec
from flows.export.writer import Writer

SPEC = ExporterSpec("test", FileSpec("nowhere"))


class Tape:
    """A sink that remembers; `broken` makes it fail."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def write(self, lines: Sequence[bytes]) -> None:
        self.gate.wait(10)
        if self.broken:
            raise OSError(28, "No space left on device")
        self.lines += lines

    def close(self) -> None:
        pass


def response(verdict: str = "DROPPED", direction: str = "INGRESS", namespace: str = "default") -> bytes:
    flow = flow_pb2.Flow(
        verdict=flow_pb2.Verdict.Value(verdict),
        traffic_direction=flow_pb2.TrafficDirection.Value(direction),
        source=flow_pb2.Endpoint(namespace=namespace, pod_name="xwing"),
        node_name="n1",
    )
    sent = observer_pb2.GetFlowsResponse(flow=flow, node_name="n1")
    sent.time.seconds = sent.flow.time.seconds = 1_768_385_472
    return sent.SerializeToString()


def started(spec: ExporterSpec, tape: Tape, **clocks: object) -> tuple[Writer, list[str]]:
    complaints: list[str] = []
    writer = Writer(spec, complaints.append, open_sink=lambda: tape, **clocks)  # type: ignore[arg-type]
    writer.start()
    return writer, complaints


def accounted(writer: Writer) -> bool:
    c = writer.counts
    return c.offered == c.written + c.dropped + c.failed + c.ended + c.aggregated


def test_each_flow_is_a_line_in_hubbles_form() -> None:
    tape = Tape()
    writer, _ = started(SPEC, tape)
    writer.offer([response(), response("FORWARDED")])
    writer.stop()
    assert tape.lines[0] == (
        b'{"flow":{"time":"2026-01-14T10:11:12Z","verdict":"DROPPED","source":{"namespace":"default",'
        b'"pod_name":"xwing"},"node_name":"n1","traffic_direction":"INGRESS"},"node_name":"n1",'
        b'"time":"2026-01-14T10:11:12Z"}\n'
    )
    assert writer.counts.written == 2
    assert accounted(writer)


def test_a_writer_that_cannot_keep_up_drops_and_counts() -> None:
    tape = Tape()
    tape.gate.clear()
    writer, _ = started(SPEC, tape)
    batch = [response("FORWARDED")] * 1000
    for _ in range(40):
        writer.offer(batch)
    tape.gate.set()
    writer.stop(30)
    assert writer.counts.dropped >= 40_000 - admission.QUEUE_EVENTS - 1000
    assert writer.counts.written == len(tape.lines) > 0
    assert accounted(writer)


def test_a_full_disk_is_told_once_and_writing_goes_on_when_there_is_room() -> None:
    tape, now = Tape(), [0.0]
    writer, complaints = started(SPEC, tape, monotonic=lambda: now[0])
    tape.broken = True
    writer.offer([response()])
    writer.offer([response()])
    wait_for(lambda: writer.counts.failed == 2)
    assert writer.trouble == "exporter test: nowhere: No space left on device"
    assert complaints == [f"{writer.trouble}; what comes meanwhile is dropped"]
    tape.broken, now[0] = False, 2.0
    writer.offer([response()])
    writer.stop()
    assert len(tape.lines) == writer.counts.written == 1
    assert writer.trouble == ""
    assert accounted(writer)


def test_after_its_end_an_exporter_writes_nothing() -> None:
    tape = Tape()
    writer, _ = started(replace(SPEC, end=5), tape, unix_ns=lambda: 6)
    writer.offer([response()])
    writer.stop()
    assert not tape.lines
    assert writer.has_ended
    assert writer.counts.ended == 1


def test_aggregated_flows_are_one_line_per_key_with_counts_by_direction() -> None:
    tape = Tape()
    spec = replace(SPEC, aggregate=frozenset({"source.namespace", "verdict"}), interval=3600.0)
    writer, _ = started(spec, tape)
    loss = observer_pb2.GetFlowsResponse(lost_events=flow_pb2.LostEvent(num_events_lost=3))
    for directions in ("INGRESS", "INGRESS", "EGRESS", "TRAFFIC_DIRECTION_UNKNOWN"):
        writer.offer([response(direction=directions)])
    writer.offer([response(namespace="other"), loss.SerializeToString()])
    writer.stop()
    lost, first, second = (json.loads(line) for line in tape.lines)
    assert lost == {"lost_events": {"num_events_lost": "3"}}
    assert first["flow"] == {
        "verdict": "DROPPED",
        "source": {"namespace": "default"},
        "aggregate": {"ingress_flow_count": 2, "egress_flow_count": 1, "unknown_direction_flow_count": 1},
    }
    assert second["flow"]["source"] == {"namespace": "other"}
    assert accounted(writer)


def wait_for(condition: object) -> None:
    """Until it holds; at most ten seconds."""
    for _ in range(1000):
        if condition():  # type: ignore[operator]
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never became true")


def test_denials_are_dropped_last() -> None:
    tape = Tape()
    tape.gate.clear()
    writer, _ = started(SPEC, tape)
    for _ in range(40):
        writer.offer([response("FORWARDED")] * 990 + [response("DROPPED")] * 10)
    tape.gate.set()
    writer.stop(30)
    assert writer.counts.dropped > 0
    assert sum(b'"DROPPED"' in line for line in tape.lines) == 400
    assert accounted(writer)


def test_also_denials_have_an_end() -> None:
    full = admission.QUEUE_EVENTS
    assert len(admission.admitted([response()] * 10_000, full)) == admission.DENIALS_MORE
    assert not admission.admitted([response()], full + admission.DENIALS_MORE)
    assert len(admission.admitted([response("FORWARDED")] * 10, full - 3)) == 3
