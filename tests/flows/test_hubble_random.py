"""Random command lines, to the stock hubble (where HUBBLE_CLI names it) and to ours: the same filters, the same output.

Recorded responses are read by both, so what is compared is the whole way: options, filters, CEL, printer.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess

import click
import pytest

from agent.cli.observe import observe
from tests.flows.hubble_runs import RESPONSES

HUBBLE = os.environ.get("HUBBLE_CLI", "")
pytestmark = pytest.mark.skipif(not HUBBLE, reason="needs the stock command line: HUBBLE_CLI=path")

ENDS = {
    "pod": ["a", "a/b", "/x", "b/", "x-y"],
    "namespace": ["x", "y", "kube-system"],
    "ip": ["10.0.0.1", "10.0.0.0/8", "fd00::1"],
    "fqdn": ["*.a.b", "x", "*"],
    "label": ["app=x", "k8s:app in (x,c)", "!x", "reserved:world"],
    "service": ["s", "a/s"],
    "port": ["80", "443", "0"],
    "identity": ["world", "host", "77", "kube-apiserver"],
    "workload": ["w", "Deployment/w", "Deployment/", ""],
}
VALUES = {
    **{prefix + name: values for name, values in ENDS.items() for prefix in ("", "from-", "to-")},
    "uuid": ["u", ""],
    "snat-ip": ["1.1.1.1"],
    "ip-version": ["4", "v6", "none", "IPv4"],
    "trace-id": ["ab"],
    "ip-trace-id": ["5", "18446744073709551615"],
    "verdict": ["DROPPED", "FORWARDED", "ERROR", "TRACED"],
    "drop-reason-desc": ["POLICY_DENIED", "DROP_REASON_UNKNOWN"],
    "type": ["l7", "trace:to-proxy", "trace", "drop", "129", "4:1", "agent:policy-updated", "policy-verdict", "0"],
    "protocol": ["tcp", "http", "udp", "dns", "kafka", "icmp"],
    "tcp-flags": ["syn", "SYN,ack", "ns"],
    "http-status": ["5+", "200", "40+"],
    "http-method": ["get", "PUT"],
    "http-path": ["^/v1", "a b", "<b>&\"'$"],
    "http-url": ["<d>", "a|b\\d", "deathstar"],
    "http-header": ["a:b", "A: c:d", ":"],
    "node-name": ["n*", "default/*", "other/"],
    "node-label": ["zone=a", "zone in (a,b)", "!zone"],
    "traffic-direction": ["Ingress", "egress"],
    "interface": ["eth0", ""],
    "cel-expression": [
        "_flow.verdict == Verdict.DROPPED",
        "_flow.source.labels.exists(l, l == 'k8s:app=x')",
        "has(_flow.l7) && _flow.l7.http.code >= 400u",
        "_flow.node_labels[0] == 'zone=a'",
        "_flow.is_reply == true",
        "_flow.uuid == 'é'",
        "1 / 0 == 1",
    ],
}
FLAGS = ["all-namespaces", "from-all-namespaces", "to-all-namespaces", "ipv4", "ipv6", "encrypted", "unencrypted"]
FORMS = [
    *([], ["-o", "json"], ["-o", "dict"], ["-o", "table"], ["--numeric"], ["--color", "always"], ["-D"]),
    *(["--print-node-name", "--time-format", "RFC3339Nano"], ["--ip-translation=false"], ["--print-policy-names"]),
]
SELECTIONS = [
    *([], [], ["--last", "3"], ["--first", "2"], ["--all"], ["--since", "2020-01-01"]),
    ["--until", "2020-01-01T00:00:00Z"],
]


def filters(chance: random.Random, most: int) -> list[str]:
    typed = []
    for _ in range(chance.randint(0, most)):
        typed += ["--not"] if chance.random() < 0.25 else []
        if chance.random() < 0.12:
            typed.append(f"--{chance.choice(FLAGS)}")
        else:
            name = chance.choice(sorted(VALUES))
            typed += [f"--{name}", chance.choice(VALUES[name])]
    return typed


def ours(typed: list[str]) -> str | None:
    """What we print; None if we refuse."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            observe.main(typed, standalone_mode=False)
        except click.ClickException:
            return None
    return out.getvalue()


def theirs(typed: list[str]) -> str | None:
    done = subprocess.run([HUBBLE, "observe", *typed], capture_output=True, env={"HOME": "/nonexistent"}, timeout=20)
    return done.stdout.decode() if done.returncode == 0 else None


@pytest.mark.parametrize("seed", range(60))
def test_the_same_filters(seed: int) -> None:
    typed = ["--print-raw-filters", *filters(random.Random(seed), 5)]
    assert ours(typed) == theirs(typed), typed


@pytest.mark.parametrize("seed", range(60))
def test_the_same_output(seed: int) -> None:
    chance = random.Random(1000 + seed)
    typed = ["--input-file", str(RESPONSES), *chance.choice(FORMS), *chance.choice(SELECTIONS), *filters(chance, 3)]
    assert ours(typed) == theirs(typed), typed
