"""Requests per second and latency: direct, through a bare Envoy, through Deflector, and past it at layer 4.

One wrk, one server, one worker in each proxy. The bare Envoy is the same binary as an explicit forward proxy with an
access log of the kind that Deflector's writes (gRPC, to a receiver that throws it away); `bare_file_log` is the same
with Envoy's default log in a file, which costs less. Deflector intercepts, judges by one HTTP rule and reports flows.
`followed` is Deflector with a follower of the Hubble API, which itself competes for the machine's cores.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.follower import follower
from benchmarks.load import LoadReport, press
from benchmarks.samples import in_turns, median, paired_ratio
from benchmarks.stage import CLIENT, FORWARD_PORTS, HTTP_PORT, PATH, PLAIN_PORT, SERVER, Stage
from benchmarks.usage import cpu_us
from conformance.galaxy import NODE

ROUNDS, SECONDS = 9, 1
LEGS = ("direct", "bare_file_log", "bare", "deflector", "followed", "l4")


@dataclass(frozen=True, slots=True)
class Turn:
    """One leg in one round: what wrk saw, and CPU per request (us) of the processes that were watched."""

    report: LoadReport
    cpu_us: dict[str, float]


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    stage.node.await_ready()
    targets = _targets(stage)
    watched = {
        "bare_envoy": stage.forward_proxy.pid,
        "deflector_envoy": stage.node.envoy_pid,
        "agent": stage.node.agent_pid,
    }
    for namespace, url in targets.values():
        press(namespace, url, seconds=1)
    turns: dict[str, list[Turn]] = {leg: [] for leg in LEGS}
    for number, leg in in_turns(LEGS, ROUNDS):
        stage.note(f"throughput: {leg}, round {number + 1} of {ROUNDS}")
        with ExitStack() as stack:
            if leg == "followed":
                stack.enter_context(follower(stage.node.hubble_socket))
            turns[leg].append(_turn(targets[leg], watched))
    return _figures(turns)


def _targets(stage: Stage) -> dict[str, tuple[str, str]]:
    """Leg -> namespace of the client, URL."""
    plain, deflected = stage.plain, stage.deflected
    here, there = plain.namespace(CLIENT), deflected.namespace(CLIENT)
    server = deflected.address(SERVER, 4)
    return {
        "direct": (here, f"http://{plain.address(SERVER, 4)}:{HTTP_PORT}{PATH}"),
        "bare": (here, f"http://{plain.address(NODE, 4)}:{FORWARD_PORTS['grpc']}{PATH}"),
        "bare_file_log": (here, f"http://{plain.address(NODE, 4)}:{FORWARD_PORTS['file']}{PATH}"),
        "deflector": (there, f"http://{server}:{HTTP_PORT}{PATH}"),
        "followed": (there, f"http://{server}:{HTTP_PORT}{PATH}"),
        "l4": (there, f"http://{server}:{PLAIN_PORT}{PATH}"),
    }


def _turn(target: tuple[str, str], watched: dict[str, int]) -> Turn:
    before = {name: cpu_us(pid) for name, pid in watched.items()}
    report = press(*target, seconds=SECONDS)
    return Turn(report, {name: (cpu_us(pid) - before[name]) / report.requests for name, pid in watched.items()})


def _figures(turns: dict[str, list[Turn]]) -> dict[str, float]:
    rps = {leg: [turn.report.rps for turn in taken] for leg, taken in turns.items()}
    figures = {f"{leg}_rps": median(values) for leg, values in rps.items()}
    for leg, taken in turns.items():
        figures[f"{leg}_p50_ms"] = median(turn.report.p50_ms for turn in taken)
        figures[f"{leg}_p99_ms"] = median(turn.report.p99_ms for turn in taken)
    return figures | {
        "proxy_throughput_ratio": paired_ratio(rps["deflector"], rps["bare"]),
        "proxy_throughput_file_log_ratio": paired_ratio(rps["deflector"], rps["bare_file_log"]),
        "bare_envoy_us_per_request": median(turn.cpu_us["bare_envoy"] for turn in turns["bare"]),
        "bare_file_log_envoy_us_per_request": median(turn.cpu_us["bare_envoy"] for turn in turns["bare_file_log"]),
        "deflector_envoy_us_per_request": median(turn.cpu_us["deflector_envoy"] for turn in turns["deflector"]),
        "agent_us_per_request": median(turn.cpu_us["agent"] for turn in turns["deflector"]),
        "agent_followed_us_per_request": median(turn.cpu_us["agent"] for turn in turns["followed"]),
    }
