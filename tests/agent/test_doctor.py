"""`deflector doctor`: what clashes on a node, and a pair that proves redirection."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.doctoring.clashes import judge
from agent.doctoring.facts import Facts, Others
from bpf.features import State
from conformance import netns

DEFLECTOR = Path(sys.executable).parent / "deflector"
CLEAN = Facts(interfaces=("eth0", "veth1"), rules=(), routes=(), tables=(), marks=())


def rule(*expr: dict[str, Any], table: str = "filter") -> dict[str, Any]:
    return {"rule": {"family": "inet", "table": table, "chain": "c", "expr": list(expr)}}


def mangle(key: str, value: Any, what: str = "meta") -> dict[str, Any]:
    return {"mangle": {"key": {what: {"key": key}}, "value": value}}


def chain(hook: str, policy: str, table: str = "filter") -> dict[str, Any]:
    return {"chain": {"family": "inet", "table": table, "name": "c", "hook": hook, "policy": policy}}


def not_ok(facts: Facts, agent: bool = False) -> dict[str, str]:
    return {c.name: c.detail for c in judge(facts, (14000, 14999), agent) if c.state is not State.OK}


def test_a_clean_node_has_nothing() -> None:
    assert not_ok(CLEAN) == {}


@pytest.mark.parametrize(
    ("facts", "name", "words"),
    [
        (replace(CLEAN, interfaces=("cilium_host", "eth0")), "Cilium", "cilium_host"),
        (
            replace(CLEAN, others=(Others("veth1", (("ingress", "1 TCX programs"),)),)),
            "programs on veths",
            "veth1 ingress",
        ),
        (
            replace(CLEAN, rules=({"priority": 100, "fwmark": "0x100", "fwmask": "0xffff", "table": "7"},)),
            "policy routing",
            "rule 100: fwmark 0x100/0xffff",
        ),
        (replace(CLEAN, routes=({"dst": "10.0.0.0/8"},)), "routing table 2004", "10.0.0.0/8"),
        (replace(CLEAN, marks=((0x100, 0xF00),)), "firewall's marks", "0x100/0xf00"),
        (replace(CLEAN, tables=(rule(mangle("mark", 0x200)),)), "firewall's marks", "inet filter c sets 0x200"),
        (replace(CLEAN, tables=(rule(mangle("mark", {"map": {}})),)), "firewall's marks", "inet filter c"),
        (replace(CLEAN, tables=(chain("input", "drop"),)), "firewall's input", "drops by default"),
        (replace(CLEAN, tables=(rule(mangle("zone", 7, "ct")),)), "connection tracking", "zones"),
        (replace(CLEAN, zones=True), "connection tracking", "zones"),
        (replace(CLEAN, listening=frozenset({14010})), "proxy ports", "14010"),
        (replace(CLEAN, rules=None), "policy routing", "'ip' is missing"),
        (replace(CLEAN, tables=None, marks=None), "firewall's marks", "'nft' is missing"),
    ],
)
def test_what_clashes_is_named(facts: Facts, name: str, words: str) -> None:
    assert words in not_ok(facts)[name]
    assert len(not_ok(facts)) == 1


@pytest.mark.parametrize(
    "facts",
    [
        replace(CLEAN, rules=({"priority": 9, "fwmark": "0x200", "fwmask": "0xf00", "table": 2004},)),
        replace(CLEAN, rules=({"priority": 9, "fwmark": "0x4000", "fwmask": "0x4000", "table": "7"},)),
        replace(CLEAN, marks=((0x4000, 0x4000), (0x0, 0xC000))),  # kube-proxy's, Calico's
        replace(CLEAN, tables=(rule(mangle("mark", {"|": [{"meta": {"key": "mark"}}, 0x4000]})),)),
        replace(CLEAN, tables=(rule(mangle("mark", 0x200), table="deflector"), chain("input", "drop", "deflector"))),
        replace(CLEAN, tables=(chain("forward", "drop"),), rp_filter={"all": "1"}),
    ],
)
def test_what_does_not_clash_is_not_named(facts: Facts) -> None:
    assert not_ok(facts) == {}


def test_ports_that_an_agent_uses_are_its_own() -> None:
    assert not_ok(replace(CLEAN, listening=frozenset({14010})), agent=True) == {}


@pytest.fixture
def host() -> Iterator[str]:
    """A network namespace that takes the host's place."""
    name = f"doctor-{secrets.token_hex(3)}"
    netns.tool(["ip", "netns", "add", name])
    try:
        netns.ip_batch(name, ["link set lo up"])
        yield name
    finally:
        netns.remove([name])


def examined(host: str, folder: Path, *flags: str) -> tuple[int, dict[str, dict[str, str]]]:
    argv = [str(DEFLECTOR), "doctor", "--run-dir", str(folder / "run"), "-o", "json", *flags]
    done = subprocess.run(netns.inside(host, argv), capture_output=True, text=True, timeout=110, check=False)
    return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}


@pytest.mark.privileged
def test_the_pair_proves_redirection_and_leaves_nothing(host: str, tmp_path: Path) -> None:
    code, found = examined(host, tmp_path)
    assert found["probe pair"]["state"] == "ok", found["probe pair"]
    assert code == 0, {name: check for name, check in found.items() if check["state"] != "ok"}
    left = json.loads(netns.tool(netns.inside(host, ["ip", "-j", "link"])))
    assert [link["ifname"] for link in left] == ["lo"]
    assert not json.loads(netns.tool(netns.inside(host, ["nft", "-j", "list", "ruleset"])))["nftables"][1:]
    assert not netns.existing("dflp-")


@pytest.mark.privileged
def test_what_others_have_done_to_a_node_is_found(host: str, tmp_path: Path) -> None:
    netns.ip_batch(host, ["link add v0 type veth peer name v1", "link set v0 up"])
    netns.ip_batch(host, ["rule add fwmark 0x300/0xf00 lookup 77", "route add local 127.0.0.9 dev lo table 2004"])
    for line in (
        "tc;qdisc;add;dev;v0;clsact",
        "tc;filter;add;dev;v0;ingress;prio;1;protocol;all;bpf;da;bytecode;1,6 0 0 0",
        "iptables;-t;mangle;-A;PREROUTING;-j;MARK;--set-xmark;0x100/0x100",
        "nft;add table inet strange",
        "nft;add chain inet strange in { type filter hook input priority 0; policy drop; }",
    ):
        tool, *words = line.split(";") if not line.startswith("nft") else line.split(";", 1)
        netns.tool(netns.inside(host, [tool, *words]))
    code, found = examined(host, tmp_path, "--no-probe")
    assert code == 1
    bad = {name for name, check in found.items() if check["state"] != "ok"}
    assert bad >= {"policy routing", "firewall's marks", "firewall's input", "programs on veths"}
    assert "probe pair" not in found
