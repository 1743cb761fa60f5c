"""A node whose parts in the kernel somebody removes: nothing stays open, and all comes back without a restart."""

from __future__ import annotations

import asyncio
import subprocess
import time

import pytest

from conformance import netns
from conformance.blueprint import star_wars
from conformance.galaxy import NODE, Galaxy, galaxy
from conformance.manifests import policy_file, to_yaml
from conformance.node import running
from conformance.objects import policy_object

pytestmark = pytest.mark.privileged

PATIENCE = 5.0  # seconds until a thing that was removed is back
EMPIRE = {"matchLabels": {"org": "empire"}}
RULE = {"http": [{"method": "POST", "path": "/v1/request-landing"}]}
SPEC = {
    "endpointSelector": {"matchLabels": {"class": "deathstar"}},
    "ingress": [
        {"fromEndpoints": [EMPIRE], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}], "rules": RULE}]}
    ],
}
POLICY = policy_object("CiliumNetworkPolicy", "rule1", "default", {"spec": SPEC})
DAMAGES = {
    "filters": "tc qdisc del dev pod-deathstar-1 clsact",
    "rule": "ip rule del pref 104",
    "rule for IPv6": "ip -6 rule del pref 104",
    "helper": "ip link del deflector0",
}


def answer(made: Galaxy, who: str, family: int) -> str:
    address = made.address("deathstar-1", family)
    url = f"http://{f'[{address}]' if family == 6 else address}/v1/request-landing"
    argv = ["curl", "-s", "-m", "0.5", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", url]
    done = subprocess.run(netns.inside(made.namespace(who), argv), capture_output=True, text=True, check=False)
    return done.stdout


def answers(made: Galaxy) -> list[str]:
    return [answer(made, who, family) for who in ("tiefighter", "xwing") for family in (4, 6)]


async def test_what_somebody_removes_comes_back() -> None:
    good = ["200", "200", "000", "000"]
    with galaxy(star_wars(), prefix="mend") as made:
        made.manifests.write(policy_file("rule1"), to_yaml([POLICY]))
        async with running(made):
            assert await asyncio.to_thread(answers, made) == good
            for what, command in DAMAGES.items():
                netns.tool(netns.inside(made.namespace(NODE), command.split()))
                end = time.monotonic() + PATIENCE
                while (found := await asyncio.to_thread(answers, made)) != good:
                    assert time.monotonic() < end, f"{what}: {found}"


async def test_a_policy_is_enforced_although_the_table_was_flushed() -> None:
    with galaxy(star_wars(), prefix="mend") as made:
        async with running(made) as node:
            netns.tool(netns.inside(made.namespace(NODE), ["nft", "delete", "table", "inet", "deflector"]))
            made.manifests.write(policy_file("rule1"), to_yaml([POLICY]))
            await node.enforced()
            assert await asyncio.to_thread(answer, made, "tiefighter", 4) == "200"
            assert await asyncio.to_thread(answer, made, "xwing", 4) == "000"
