"""What a rule costs: CPU per request of Deflector's Envoy with 1 to 10,000 rules, worst case: the last one matches.

Every form and count has a port, a policy and so a slot of its own, all in one Envoy at once: legs take turns without
an edit in between. Rules go in as policy files, as a user would save them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.connection import Connection
from benchmarks.errors import NotMeasured
from benchmarks.figures import RULE_COUNTS, RULE_FORMS
from benchmarks.load import press
from benchmarks.policy import last_path, many_rules
from benchmarks.samples import in_turns, medians, paired_ratio
from benchmarks.stage import CLIENT, RULE_PORTS, SERVER, Stage
from benchmarks.usage import cpu_us, rss_mb
from conformance.manifests import policy_file

ROUNDS, SECONDS = 5, 1
LARGEST = RULE_COUNTS[-1]
ENFORCED = 60.0  # seconds that ten thousand rules may take before the measurement is given up
PAUSE = 0.005  # seconds between two requests while waiting: the compiler needs the core more than we do

Leg = tuple[str, int]


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    stage.node.await_ready()
    with _policies(stage):
        stage.note("rules: saving policies of 1, 100 and 1,000 rules")
        _save_small_ones(stage)
        edits = [_save_large(stage, form) for form in RULE_FORMS]
        memory = rss_mb(stage.node.agent_pid)
        spent = _spent(stage)
    figures = {f"cpu_us_per_request_{form}_{count}": us for (form, count), us in medians(spent).items()}
    figures["rules_cost_ratio"] = max(paired_ratio(spent[form, LARGEST], spent[form, 1]) for form in RULE_FORMS)
    figures["rules_10000_to_enforced_ms"] = max(edits) * 1e3
    figures["agent_rss_10000_rules_mb"] = memory
    return figures


@contextmanager
def _policies(stage: Stage) -> Iterator[None]:
    try:
        yield
    finally:
        for form, count in RULE_PORTS:
            stage.deflected.manifests.remove(policy_file(f"{form}-{count}"))


def _save_small_ones(stage: Stage) -> None:
    """Where ten thousand rules will be, there is one rule at first: then the slot is there before its rules are."""
    counts = {leg: 1 if leg[1] == LARGEST else leg[1] for leg in RULE_PORTS}
    for (form, count), port in RULE_PORTS.items():
        text = many_rules(form, counts[form, count], port).replace(f"{form}-1\n", f"{form}-{count}\n", 1)
        stage.deflected.manifests.write(policy_file(f"{form}-{count}"), text)
    for (form, count), port in RULE_PORTS.items():
        stage.await_allowed(port, last_path(form, counts[form, count]), ENFORCED)


def _save_large(stage: Stage, form: str) -> float:
    """Seconds from saving ten thousand rules to the first request that the last of them allows."""
    stage.note(f"rules: saving {LARGEST:,} {form} rules")
    port, path = RULE_PORTS[form, LARGEST], last_path(form, LARGEST)
    text = many_rules(form, LARGEST, port)
    with stage.connect(port) as connection:
        saved = time.monotonic()
        stage.deflected.manifests.write(policy_file(f"{form}-{LARGEST}"), text)
        return _until_allowed(connection, path, saved + ENFORCED) - saved


def _until_allowed(connection: Connection, path: str, deadline: float) -> float:
    while True:
        answer = connection.get(path)
        if answer.status == 200:
            return answer.answered
        if answer.answered > deadline:
            raise NotMeasured(f"{LARGEST:,} rules are not enforced after {ENFORCED:.0f} s")
        time.sleep(PAUSE)


def _spent(stage: Stage) -> dict[Leg, list[float]]:
    """Leg -> CPU per request (us) in each round."""
    envoy, made = stage.node.envoy_pid, stage.deflected
    namespace, server = made.namespace(CLIENT), made.address(SERVER, 4)
    spent: dict[Leg, list[float]] = {leg: [] for leg in RULE_PORTS}
    for number, leg in in_turns(list(RULE_PORTS), ROUNDS):
        form, count = leg
        stage.note(f"rules: {count:,} {form}, round {number + 1} of {ROUNDS}")
        before = cpu_us(envoy)
        report = press(namespace, f"http://{server}:{RULE_PORTS[leg]}{last_path(form, count)}", seconds=SECONDS)
        spent[leg].append((cpu_us(envoy) - before) / report.requests)
    return spent
