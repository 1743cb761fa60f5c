"""Policies and pods change under traffic: no request is ever judged by rules that are not its own.

Each story asks, on live connections and without pause, for what neither the old nor the new policy allows to the one
who asks, but allows to somebody else: an answer to that is a request judged by the wrong rules.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from conformance import netns
from conformance.blueprint import star_wars
from conformance.galaxy import HOST_SIDE_MAC, NODE, Galaxy, galaxy
from conformance.node import Node, running
from tests.agent.galaxy import DROPPED, HOME, LANDING, PORT, Request, http_rule, l4_rule, policy_name, save
from tests.agent.travellers import Traveller, travelling

pytestmark = pytest.mark.privileged

LANDED, EXPLODED, WELCOME, FORBIDDEN = "200", "503", "200", "403"
EMPIRE, ALLIANCE, HUTTS = {"org": "empire"}, {"org": "alliance"}, {"org": "hutts"}
ROUNDS = 6
PATIENCE = 10.0
BEFORE_AFTER = 4  # answers that a traveller gets under each policy


@dataclass
class Story:
    """A galaxy with a node, and those who travel in it."""

    made: Galaxy
    node: Node
    travellers: dict[str, Traveller] = field(default_factory=dict)

    def traveller(self, who: str, *requests: Request, to: str = "deathstar-1") -> Traveller:
        self.travellers[who] = made = Traveller(self.made, who, to, requests)
        return made

    async def enforced(self) -> float:
        """The moment from which on the manifests hold; everybody has asked since."""
        await self.node.enforced()
        moment = time.monotonic()
        await self.until(lambda: all(t.count(moment) >= BEFORE_AFTER for t in self.travellers.values()), "answers")
        return moment

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, what
            await asyncio.sleep(0.01)

    def relabel(self, name: str, labels: dict[str, str] | None) -> None:
        """The manifest of this pod with other labels; without the pod for None."""
        path = self.made.manifests.root / "pods.yaml"
        self._pods: dict[str, dict[str, Any]]
        pods = getattr(self, "_pods", None) or {p["metadata"]["name"]: p for p in yaml.safe_load_all(path.read_text())}
        self._pods = pods
        shown = []
        for pod in pods.values():
            if pod["metadata"]["name"] == name:
                if labels is None:
                    continue
                pod = {**pod, "metadata": {**pod["metadata"], "labels": labels}}
            shown.append(pod)
        self.made.manifests.write("pods.yaml", yaml.safe_dump_all(shown))

    def replace_veth(self, alias: str) -> None:
        """The pod's sandbox is made anew: the same address, another interface index."""
        pod = self.made.blueprint.pod(alias)
        device, inside = pod.host_device, self.made.namespace(alias)
        netns.ip_batch(self.made.namespace(NODE), [f"link del {device}"])
        netns.ip_batch(
            self.made.namespace(NODE),
            [
                f"link add {device} address {HOST_SIDE_MAC} type veth peer name eth0 netns {inside}",
                f"link set {device} up",
                f"route add {pod.v4}/32 dev {device}",
            ],
        )
        netns.write_sysctls(
            self.made.namespace(NODE),
            {f"ipv4/conf/{device}/proxy_arp": "1", f"ipv4/neigh/{device}/proxy_delay": "0"},
        )
        netns.ip_batch(
            inside,
            [
                f"address add {pod.v4}/32 dev eth0",
                "link set eth0 up",
                "route add 169.254.1.1 dev eth0 scope link",
                "route add default via 169.254.1.1 dev eth0",
            ],
        )

    async def attached_again(self, alias: str, before: int) -> None:
        """Until the node knows the pod at another interface."""
        end = time.monotonic() + PATIENCE
        while await self.interface(alias) in (0, before):
            assert time.monotonic() < end, "the new interface is not attached"

    async def interface(self, alias: str) -> int:
        status = await self.node.status() or {}
        name = self.made.blueprint.pod(alias).name
        return next((int(e["id"]) for e in status.get("endpoints", ()) if e["name"] == name), 0)


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    with galaxy(star_wars(), prefix="race") as made:
        save(made, "rule1", http_rule(LANDING, EMPIRE, ALLIANCE))
        async with running(made) as node:
            yield Story(made, node)


async def test_who_is_narrowed_out_never_gets_what_the_others_get(story: Story) -> None:
    """Who stays may open the port now; who leaves may nothing, and never could open it. Requests that were on their
    way when he left count as well."""
    stays, leaves = story.traveller("tiefighter", LANDING, PORT), story.traveller("xwing", LANDING, PORT)
    with travelling(stays, leaves):
        for _ in range(ROUNDS):
            save(story.made, "rule1", http_rule(LANDING, EMPIRE, ALLIANCE))
            moment = await story.enforced()
            assert stays.since(moment) == {(LANDING, LANDED), (PORT, FORBIDDEN)}
            save(story.made, "rule1", http_rule(PORT, EMPIRE))
            moment = await story.enforced()
            assert stays.since(moment) == {(LANDING, FORBIDDEN), (PORT, EXPLODED)}
            assert leaves.since(moment) == {(LANDING, DROPPED), (PORT, DROPPED)}
    assert {a.status for a in leaves.answers if a.request == PORT} <= {FORBIDDEN, DROPPED}


async def test_who_is_left_out_when_the_others_may_everything_gets_nothing(story: Story) -> None:
    stays, leaves = story.traveller("tiefighter", LANDING, PORT), story.traveller("xwing", PORT)
    with travelling(stays, leaves):
        for _ in range(ROUNDS):
            save(story.made, "rule1", http_rule(LANDING, EMPIRE, ALLIANCE))
            await story.enforced()
            save(story.made, "rule1", l4_rule(EMPIRE))
            moment = await story.enforced()
            assert stays.since(moment) - _gone == {(LANDING, LANDED), (PORT, EXPLODED)}
            assert leaves.since(moment) == {(PORT, DROPPED)}
    assert {a.status for a in leaves.answers} <= {FORBIDDEN, DROPPED}


async def test_a_rule_that_comes_back_within_the_drain_judges_old_connections_too(story: Story) -> None:
    empire, alliance = story.traveller("tiefighter", LANDING, PORT), story.traveller("xwing", LANDING, PORT)
    with travelling(empire, alliance):
        for round_ in range(ROUNDS):
            story.made.manifests.remove(policy_name("rule1"))
            await story.enforced()
            allowed = (LANDING, PORT)[round_ % 2]
            save(story.made, "rule1", http_rule(allowed, EMPIRE))
            moment = await story.enforced()
            good = {
                (LANDING, LANDED if allowed == LANDING else FORBIDDEN),
                (PORT, EXPLODED if allowed == PORT else FORBIDDEN),
            }
            assert empire.since(moment) <= good | {(LANDING, DROPPED), (PORT, DROPPED)}
            assert alliance.since(moment) <= {(LANDING, DROPPED), (PORT, DROPPED)}


async def test_a_pod_with_new_labels_is_judged_by_its_own_rules_only(story: Story) -> None:
    save(story.made, "rule1", http_rule(LANDING, EMPIRE), http_rule(PORT, HUTTS), http_rule(HOME, ALLIANCE))
    await story.node.enforced()
    smuggler = story.traveller("tiefighter", LANDING, PORT, HOME)
    other = story.traveller("xwing", LANDING, PORT, HOME)
    name = story.made.blueprint.pod("tiefighter").name
    with travelling(smuggler, other):
        for _ in range(ROUNDS):
            story.relabel(name, HUTTS)
            moment = await story.enforced()
            assert smuggler.since(moment) - _gone <= {(LANDING, FORBIDDEN), (PORT, EXPLODED), (HOME, FORBIDDEN)}
            story.relabel(name, EMPIRE)
            moment = await story.enforced()
            assert smuggler.since(moment) - _gone <= {(LANDING, LANDED), (PORT, FORBIDDEN), (HOME, FORBIDDEN)}
    assert {a.status for a in smuggler.answers if a.request == HOME} <= {FORBIDDEN, DROPPED}
    assert {(a.request, a.status) for a in other.answers} == {
        (LANDING, FORBIDDEN),
        (PORT, FORBIDDEN),
        (HOME, WELCOME),
    }, "nobody else notices"


async def test_a_server_with_new_labels_obeys_its_own_policy_only(story: Story) -> None:
    """Its replica keeps the old one."""
    save(story.made, "rule1", http_rule(LANDING, EMPIRE))
    station = {"endpointSelector": {"matchLabels": {"class": "station"}}, "ingress": [http_rule(PORT, EMPIRE)]}
    body = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "station"},
        "spec": station,
    }
    story.made.manifests.write(policy_name("station"), yaml.safe_dump(body))
    await story.node.enforced()
    moving = story.traveller("tiefighter", LANDING, PORT, HOME)
    staying = Traveller(story.made, "tiefighter", "deathstar-2", (LANDING, PORT, HOME))
    story.travellers["replica"] = staying
    name = story.made.blueprint.pod("deathstar-1").name
    labels = dict(story.made.blueprint.pod("deathstar-1").labels)
    with travelling(moving, staying):
        for _ in range(ROUNDS):
            story.relabel(name, {**labels, "class": "station"})
            moment = await story.enforced()
            assert moving.since(moment) - _gone <= {(LANDING, FORBIDDEN), (PORT, EXPLODED), (HOME, FORBIDDEN)}
            assert staying.since(moment) - _gone <= {(LANDING, LANDED), (PORT, FORBIDDEN), (HOME, FORBIDDEN)}
            story.relabel(name, labels)
            moment = await story.enforced()
            assert moving.since(moment) - _gone <= {(LANDING, LANDED), (PORT, FORBIDDEN), (HOME, FORBIDDEN)}
    assert {a.status for a in (*moving.answers, *staying.answers) if a.request == HOME} <= {FORBIDDEN, DROPPED}
    assert {a.status for a in staying.answers if a.request == PORT} <= {FORBIDDEN, DROPPED}


async def test_a_pod_that_inherits_an_address_inherits_no_rights(story: Story) -> None:
    """Deleted and made anew with the same address and other labels; its socket lives on, as a thief's would."""
    save(story.made, "rule1", http_rule(LANDING, EMPIRE), http_rule(PORT, HUTTS), http_rule(HOME, ALLIANCE))
    await story.node.enforced()
    traveller = story.traveller("tiefighter", LANDING, PORT, HOME)
    name = story.made.blueprint.pod("tiefighter").name
    with travelling(traveller):
        for labels, allowed in ((HUTTS, (PORT, EXPLODED)), (EMPIRE, (LANDING, LANDED))):
            before = await story.interface("tiefighter")
            story.relabel(name, None)
            moment = await story.enforced()
            assert {status for _, status in traveller.since(moment)} == {DROPPED}, (
                "of a pod that is gone nothing is known"
            )
            story.replace_veth("tiefighter")
            story.relabel(name, labels)
            await story.attached_again("tiefighter", before)
            moment = await story.enforced()
            await story.until(lambda: allowed in traveller.since(moment), f"{allowed} comes")  # noqa: B023
            good = {allowed} | {(r, FORBIDDEN) for r in (LANDING, PORT, HOME) if r != allowed[0]}
            assert traveller.since(moment) - _gone <= good
    assert {a.status for a in traveller.answers if a.request == HOME} <= {FORBIDDEN, DROPPED}


async def test_a_pod_at_another_interface_has_the_policy_it_had(story: Story) -> None:
    save(story.made, "rule1", http_rule(LANDING, EMPIRE))
    allowed, denied = story.traveller("tiefighter", LANDING, PORT), story.traveller("xwing", LANDING)
    with travelling(allowed, denied):
        for _ in range(2):
            before = await story.interface("deathstar-1")
            story.replace_veth("deathstar-1")
            await story.attached_again("deathstar-1", before)
            moment = await story.enforced()
            await story.until(lambda: (LANDING, LANDED) in allowed.since(moment), "it is reached again")  # noqa: B023
            assert allowed.since(moment) - _gone <= {(LANDING, LANDED), (PORT, FORBIDDEN)}
            assert denied.since(moment) == {(LANDING, DROPPED)}


async def test_who_becomes_a_plain_peer_and_back_is_never_refused_what_both_allow(story: Story) -> None:
    """From L7 to L4 and back: landing is always allowed, and every new connection gets through."""
    save(story.made, "rule1", http_rule(LANDING, EMPIRE))
    await story.node.enforced()
    traveller = story.traveller("tiefighter", LANDING)
    with travelling(traveller):
        for _ in range(ROUNDS):
            save(story.made, "rule1", l4_rule(EMPIRE))
            moment = await story.enforced()
            assert traveller.since(moment) == {(LANDING, LANDED)}
            save(story.made, "rule1", http_rule(LANDING, EMPIRE))
            moment = await story.enforced()
            assert traveller.since(moment) - _gone == {(LANDING, LANDED)}
    assert FORBIDDEN not in {a.status for a in traveller.answers if a.fresh}


_gone = {(request, DROPPED) for request in (LANDING, PORT, HOME)}  # a connection that was cut, once; the next comes
