"""The order of effects: listener before redirect, redirect before retirement, last good where something is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from agent.node.ports import ProxyPorts
from agent.node.regenerate import PROMPT_SECONDS, REFUSALS_MAX, Books, EffectFailed, Outcome, Regenerator
from agent.proxies.draining import DRAIN_SECONDS
from policies.compiling.slots import SlotBook
from policies.ir import (
    Address,
    DirectionPolicy,
    EndpointPolicy,
    HttpRule,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    SlotState,
    Verdict,
)
from policies.types import PortRange, Protocol
from tests.fakes.effects import Effects, FakeKernel, FakeProxies

DEATHSTAR, TIEFIGHTER, XWING = 256, 257, 258
ANYBODY = 0
SLOT = "ingress:256:tcp:80"


def may(path: str, *identities: int) -> PeerRule:
    """These identities may ask for this path, and nothing else."""
    return PeerRule(identities, Verdict.REDIRECT, rule_set=RuleSet((HttpRule(path=path),)))


def may_all(*identities: int) -> PeerRule:
    return PeerRule(identities, Verdict.ALLOW)


def node(*peers: PeerRule, enforced: bool = True) -> NodePolicy:
    """The policy of the deathstar at port 80, in a world of three."""
    ports = (PortPolicy(Protocol.TCP, PortRange(80, 80), peers),) if peers else ()
    ingress = DirectionPolicy(enforced, ports)
    addresses = tuple(Address(f"10.0.0.{i - 250}/32", i) for i in (DEATHSTAR, TIEFIGHTER, XWING))
    return NodePolicy(1, (EndpointPolicy(DEATHSTAR, (), ingress, DirectionPolicy()),), addresses=addresses)


@dataclass
class Story:
    """A regenerator with fakes around it and a clock that is turned by hand."""

    effects: Effects = field(default_factory=Effects)
    saved: list[Books] = field(default_factory=list)
    clock: float = 0.0
    regenerator_timeout: float = 5.0

    def __post_init__(self) -> None:
        self.regenerator = self.started(Books(SlotBook(), ProxyPorts(14000, 14009)))

    def started(self, books: Books) -> Regenerator:
        return Regenerator(
            FakeProxies(self.effects),
            FakeKernel(self.effects),
            books,
            save=self.saved.append,
            is_free=lambda protocol, port: True,
            now=lambda: self.clock,
            ack_timeout=self.regenerator_timeout,
        )

    async def want(self, *peers: PeerRule, enforced: bool = True) -> Outcome:
        return await self.regenerator.regenerate(node(*peers, enforced=enforced))


@pytest.fixture
def story() -> Story:
    return Story()


async def test_a_new_rule_gets_its_listener_before_anything_is_sent_there(story: Story) -> None:
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert outcome.complete
    assert story.effects.take() == [f"listener {SLOT} comes", f"filter {SLOT} active", f"redirect 257 to {SLOT}"]
    assert story.effects.reserved == {14000}


async def test_an_edit_replaces_the_filter_and_moves_nothing_else(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER))
    story.effects.take()
    await story.want(may("/dock", TIEFIGHTER))
    assert story.effects.take() == [f"filter {SLOT} active"]


async def test_a_removed_rule_is_let_go_of_in_peace(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER))
    story.effects.take()
    await story.want(may_all(TIEFIGHTER))
    assert story.effects.take() == ["redirect 257 ends", f"filter {SLOT} drained", f"listener {SLOT} goes"]
    assert story.effects.reserved == set()


async def test_a_slot_whose_peers_part_is_denied_after_the_kernel_has_let_go_of_it(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER, XWING))
    story.effects.take()
    await story.want(may("/land", TIEFIGHTER), may("/flee", XWING))
    log = story.effects.take()
    retired = log.index(f"filter {SLOT} retired")
    assert all(log.index(line) < retired for line in log if line.startswith("redirect"))
    assert log[-1] == f"listener {SLOT} goes"
    assert SLOT not in story.effects.redirects.values()


async def test_the_name_of_a_slot_rests_while_its_connections_are_drained(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER))
    await story.want(may_all(TIEFIGHTER))
    await story.want(may("/dock", TIEFIGHTER))
    assert story.effects.redirects == {(DEATHSTAR, TIEFIGHTER): f"{SLOT}:1"}
    assert story.effects.filters[SLOT].state is SlotState.RETIRED, "its connections are to be judged again"
    story.clock = DRAIN_SECONDS
    outcome = await story.want(may("/dock", TIEFIGHTER))
    assert [slot.name for slot in outcome.node.slots] == [f"{SLOT}:1"]


async def test_what_a_proxy_refuses_leaves_the_last_good_policy_in_force(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER))
    before = dict(story.effects.redirects)
    story.effects.refuse = {f"{SLOT}:1": "the regex is too large"}
    outcome = await story.want(may("/land", TIEFIGHTER), may("/flee", XWING))
    assert not outcome.complete
    assert outcome.degraded == (f"slot {SLOT}:1: refused by the proxy: the regex is too large",)
    assert story.effects.redirects == before


async def test_a_refused_try_leaves_the_slots_of_the_last_good_policy_as_they_were(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER, XWING))
    before = dict(story.effects.redirects)
    story.effects.refuse = {f"{SLOT}:2": "the port is busy"}
    await story.want(may("/land", TIEFIGHTER), may("/flee", XWING))
    assert story.effects.redirects == before
    assert story.effects.filters[SLOT].state is SlotState.ACTIVE
    story.effects.refuse = {}
    assert (await story.want(may("/land", TIEFIGHTER), may("/flee", XWING))).complete
    assert story.effects.filters[SLOT].state is SlotState.RETIRED


async def test_what_a_proxy_refuses_at_first_is_denied(story: Story) -> None:
    story.effects.refuse = {SLOT: "the port is busy"}
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert story.effects.redirects == {}
    assert outcome.node.policies[0].ingress == DirectionPolicy(enforced=True)
    story.effects.refuse = {}
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert outcome.complete
    assert story.effects.listeners == {SLOT: 14001}, "the next try takes another port"


async def test_a_new_slot_that_nobody_confirms_gets_no_redirect_until_somebody_does(story: Story) -> None:
    story.effects.silent = {SLOT}
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert not outcome.complete
    assert outcome.degraded == (f"slot {SLOT}: no proxy has confirmed it yet",)
    assert story.effects.redirects == {}
    story.effects.silent = set()
    assert (await story.want(may("/land", TIEFIGHTER))).complete
    assert story.effects.redirects == {(DEATHSTAR, TIEFIGHTER): SLOT}


async def test_a_proxy_that_hangs_holds_nothing_up_but_what_needs_it(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER), may_all(XWING))
    story.effects.silent = {SLOT}
    await story.want(may("/dock", TIEFIGHTER), may_all(XWING))
    assert story.effects.waited == PROMPT_SECONDS
    outcome = await story.want(may("/dock", TIEFIGHTER))
    assert story.effects.waited == PROMPT_SECONDS, "the slot is late: nobody stops for it a second time"
    assert story.effects.allowed == set(), "the x-wing is out at once"
    assert story.effects.redirects == {(DEATHSTAR, TIEFIGHTER): SLOT}, "it has a listener, though not the newest rules"
    assert not outcome.complete


async def test_who_waits_for_a_late_slot_stays_as_he_was_and_is_denied_in_the_end(story: Story) -> None:
    await story.want(may_all(TIEFIGHTER))
    story.effects.silent = {SLOT}
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert story.effects.allowed == {(DEATHSTAR, TIEFIGHTER)}
    assert outcome.due == story.regenerator_timeout
    story.clock = story.regenerator_timeout
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert story.effects.allowed == set()
    assert story.effects.redirects == {}
    assert outcome.due is None, "there is nothing more to wait for but the proxy"
    story.effects.silent = set()
    assert (await story.want(may("/land", TIEFIGHTER))).complete
    assert story.effects.redirects == {(DEATHSTAR, TIEFIGHTER): SLOT}


async def test_nobody_joins_a_slot_whose_new_rules_are_not_confirmed(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER))
    story.effects.silent = {SLOT}
    await story.want(may("/dock", TIEFIGHTER, XWING))
    assert story.effects.redirects == {(DEATHSTAR, TIEFIGHTER): SLOT}, "the x-wing would be judged by the old rules"
    story.effects.silent = set()
    await story.want(may("/dock", TIEFIGHTER, XWING))
    assert set(story.effects.redirects) == {(DEATHSTAR, TIEFIGHTER), (DEATHSTAR, XWING)}


async def test_rules_that_change_under_one_who_is_denied_now_are_those_of_a_new_slot(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER, XWING))
    story.effects.take()
    await story.want(may("/dock", TIEFIGHTER))
    assert story.effects.take() == [
        f"listener {SLOT}:1 comes",
        f"filter {SLOT}:1 active",
        f"redirect 257 to {SLOT}:1",
        "redirect 258 ends",
        f"filter {SLOT} retired",
        f"listener {SLOT} goes",
    ]


async def test_a_new_agent_denies_who_left_before_it_tells_anybody_new_rules(story: Story) -> None:
    """Nobody knows whether the rules that the earlier agent left are these."""
    await story.want(may("/land", TIEFIGHTER, XWING))
    stored = story.saved[-1].slots.to_dict()
    story.regenerator = story.started(Books(SlotBook.from_dict(stored), story.saved[-1].ports))
    story.effects.take()
    await story.want(may("/dock", TIEFIGHTER))
    assert story.effects.take() == ["redirect 258 ends", f"filter {SLOT} active"]


async def test_a_listener_that_a_hanging_proxy_keeps_is_not_forgotten(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER))
    story.effects.silent = {SLOT}
    outcome = await story.want(may_all(TIEFIGHTER))
    assert story.effects.allowed == {(DEATHSTAR, TIEFIGHTER)}
    assert story.effects.reserved == {14000}, "its port is refused to strangers for as long as it may listen"
    assert not outcome.complete
    story.effects.silent = set()
    assert (await story.want(may_all(TIEFIGHTER))).complete
    assert (story.effects.listeners, story.effects.reserved) == ({}, set())


async def test_a_rule_that_is_refused_again_and_again_is_parked_until_it_changes(story: Story) -> None:
    story.effects.refuse = {SLOT: "the regex is too large"}
    outcomes = [await story.want(may("/land", TIEFIGHTER)) for _ in range(REFUSALS_MAX)]
    assert [outcome.retry for outcome in outcomes] == [True] * (REFUSALS_MAX - 1) + [False]
    story.effects.refuse, story.effects.log = {}, []
    parked = await story.want(may("/land", TIEFIGHTER))
    assert parked.degraded == outcomes[-1].degraded
    assert (parked.complete, parked.retry, story.effects.take()) == (False, False, [])
    assert (await story.want(may("/dock", TIEFIGHTER))).complete


async def test_without_a_port_the_last_good_policy_stays_and_others_are_not_concerned(story: Story) -> None:
    story.regenerator = story.started(Books(SlotBook(), ProxyPorts(14000, 14000)))
    await story.want(may("/land", TIEFIGHTER), may_all(XWING))
    outcome = await story.want(may("/land", TIEFIGHTER), may("/flee", XWING))
    (line,) = outcome.degraded
    assert "no free proxy port in 14000-14000: widen --proxy-ports" in line
    assert story.effects.redirects == {(DEATHSTAR, TIEFIGHTER): SLOT}
    assert story.effects.allowed == {(DEATHSTAR, XWING)}
    assert outcome.retry


async def test_a_new_agent_trusts_the_slots_of_the_old_one_before_envoy_is_back(story: Story) -> None:
    await story.want(may("/land", TIEFIGHTER))
    story.regenerator = story.started(story.saved[-1])
    story.effects.silent = {SLOT}
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert story.effects.redirects == {(DEATHSTAR, TIEFIGHTER): SLOT}, "kill -9 fails no request"
    assert not outcome.complete


async def test_what_the_kernel_does_not_take_is_tried_again(story: Story) -> None:
    story.effects.kernel_fails = True
    with pytest.raises(EffectFailed, match="map is full"):
        await story.want(may("/land", TIEFIGHTER))
    story.effects.kernel_fails = False
    assert (await story.want(may("/land", TIEFIGHTER))).complete


async def test_what_the_kernel_has_no_room_for_is_told(story: Story) -> None:
    story.effects.closed = ("group 256 is closed: its entries do not fit",)
    outcome = await story.want(may("/land", TIEFIGHTER))
    assert outcome.degraded == story.effects.closed
    assert not outcome.complete


async def test_books_are_written_before_the_effects_that_they_describe(story: Story) -> None:
    story.effects.kernel_fails = True
    with pytest.raises(EffectFailed):
        await story.want(may("/land", TIEFIGHTER))
    assert story.saved[-1].ports.by_slot == {SLOT: 14000}
