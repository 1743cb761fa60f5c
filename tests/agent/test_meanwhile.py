"""Between two policies: everybody meets what the older or the newer one says, and never rules that are not theirs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import FrozenBitMap

from agent.node.meanwhile import InForce, after_restart, meanwhile
from policies.compiling.slots import SlotBook, assign
from policies.ir import (
    Address,
    DirectionPolicy,
    EndpointPolicy,
    HttpRule,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    Verdict,
)
from policies.types import ALL_PORTS, Direction, PortRange, Protocol

GROUP, EMPIRE, ALLIANCE, HUTTS = 300, 301, 302, 303
EVERYBODY = (EMPIRE, ALLIANCE, HUTTS)
PORTS = range(80, 86)
Found = tuple[Verdict, str]

# --- policies that a compiler could have made --------------------------------------------------------------------

verdicts = st.sampled_from(("allow", "deny", "/land", "/dock"))


def peers(verdict_of: dict[int, str]) -> tuple[PeerRule, ...]:
    """One rule for each verdict; identity 0 is everybody else."""
    wildcard = [i for i in verdict_of if i == 0]
    named = {i: v for i, v in verdict_of.items() if i}
    found = [(tuple(sorted(i for i in named if named[i] == v)), v) for v in sorted(set(named.values()))]
    return tuple(rule(who, verdict) for who, verdict in [*found, *(((0,), verdict_of[0]) for _ in wildcard)])


def rule(who: tuple[int, ...], verdict: str) -> PeerRule:
    if verdict.startswith("/"):
        return PeerRule(who, Verdict.REDIRECT, rule_set=RuleSet((HttpRule(path=verdict),)))
    return PeerRule(who, Verdict(verdict))


@st.composite
def directions(draw: st.DrawFn) -> DirectionPolicy:
    if not draw(st.integers(0, 5)):
        return DirectionPolicy()
    edges = sorted(draw(st.sets(st.integers(PORTS.start, PORTS.stop), min_size=2, max_size=4)))
    everybody = st.dictionaries(st.sampled_from((0, *EVERYBODY)), verdicts, min_size=1)
    ports = [
        PortPolicy(Protocol.TCP, PortRange(first, following - 1), peers(draw(everybody)))
        for first, following in pairwise(edges)
    ]
    return DirectionPolicy(True, tuple(ports))


def node(ingress: DirectionPolicy) -> NodePolicy:
    addresses = tuple(Address(f"10.0.0.{identity - 290}/32", identity) for identity in (GROUP, *EVERYBODY))
    return NodePolicy(1, (EndpointPolicy(GROUP, (), ingress, DirectionPolicy()),), addresses=addresses)


nodes = directions().map(node)

# --- the kernel's lookup, as bpf/src/policy.h has it ---------------------------------------------------------------


def verdict(node: NodePolicy, identity: int, port: int, ports: Iterable[str] | None = None) -> Found:
    """`ports`: slots that have one; a redirect to another is a deny."""
    (policy,) = node.policies
    ingress = policy.direction(Direction.INGRESS)
    if not ingress.enforced:
        return Verdict.ALLOW, ""
    own = [peer for p in ingress.ports if p.protocol is Protocol.TCP and port in p.ports for peer in p.peers]
    broad = [peer for p in ingress.ports if p.protocol is Protocol.ANY for peer in p.peers]
    for table, who in ((own, identity), (own, 0), (broad, identity), (broad, 0)):
        for peer in table:
            if who in peer.identities:
                lost = peer.verdict is Verdict.REDIRECT and (
                    not peer.slot or (ports is not None and peer.slot not in ports)
                )
                return (Verdict.DENY, "") if lost else (peer.verdict, peer.slot)
    return Verdict.DENY, ""


def every_lookup() -> Iterable[tuple[int, int]]:
    return ((identity, port) for identity in (*EVERYBODY, GROUP) for port in PORTS)


def with_slots(old: NodePolicy, new: NodePolicy) -> tuple[NodePolicy, NodePolicy]:
    before, book = assign(old, SlotBook())
    after, _ = assign(new, book)
    return before, after


def in_force(node: NodePolicy) -> InForce:
    return InForce.of(node, {slot.name: 14000 + i for i, slot in enumerate(node.slots)})


@given(nodes, nodes, st.booleans(), st.data())
def test_who_waits_stays_as_he_was_and_all_others_meet_the_new_policy(
    old: NodePolicy, new: NodePolicy, patient: bool, data: st.DataObject
) -> None:
    before, after = with_slots(old, new)
    names = sorted(slot.name for slot in after.slots)
    late = data.draw(st.sets(st.sampled_from(names))) if names else set()
    found = meanwhile(after, in_force(before), dict.fromkeys(late, patient))
    for identity, port in every_lookup():
        was, should = verdict(before, identity, port), verdict(after, identity, port)
        meets = verdict(found, identity, port)
        if should[1] not in late:
            assert meets == should
        elif was == should:
            assert meets == was, "who is sent there already still is"
        else:
            assert meets == (was if patient else (Verdict.DENY, ""))


def land_and(*others: PeerRule) -> NodePolicy:
    ports = (PortPolicy(Protocol.TCP, PortRange(80, 80), (rule((EMPIRE,), "/land"), *others)),)
    return node(DirectionPolicy(True, ports))


def test_what_holds_for_every_protocol_is_the_old_verdict_where_no_port_is_named() -> None:
    anybody = PortPolicy(Protocol.ANY, ALL_PORTS, (rule((ALLIANCE,), "allow"),))
    before, book = assign(node(DirectionPolicy(True, (anybody,))), SlotBook())
    after, _ = assign(land_and(rule((ALLIANCE,), "/dock")), book)
    found = meanwhile(after, in_force(before), {slot.name: True for slot in after.slots})
    assert verdict(found, ALLIANCE, 80) == (Verdict.ALLOW, "")
    assert verdict(found, EMPIRE, 80) == (Verdict.DENY, "")
    assert verdict(found, ALLIANCE, 81) == (Verdict.DENY, ""), "the new policy does not speak of it any more"


def test_a_new_group_is_closed_until_its_slots_are_there() -> None:
    after, _ = assign(land_and(), SlotBook())
    found = meanwhile(after, InForce(), {slot.name: True for slot in after.slots})
    assert verdict(found, EMPIRE, 80) == (Verdict.DENY, "")


def test_after_a_restart_only_who_was_sent_there_still_is() -> None:
    """The rules may have changed while no agent ran, and a proxy that hangs still has the old ones."""
    after, _ = assign(land_and(rule((ALLIANCE,), "allow")), SlotBook())
    slot = after.slots[0].name
    assert after_restart(InForce(reach={slot: FrozenBitMap([EMPIRE])}), after) is None, "the slot keeps its peers"
    found = after_restart(InForce(reach={slot: FrozenBitMap([EMPIRE, HUTTS])}), after)
    assert found is not None
    assert verdict(found, EMPIRE, 80) == (Verdict.REDIRECT, slot)
    assert verdict(found, HUTTS, 80) == (Verdict.DENY, "")


def test_what_was_sent_to_a_slot_that_is_gone_is_denied() -> None:
    """The older policy's own redirect never got a port."""
    before, after = with_slots(land_and(), land_and(rule((ALLIANCE,), "/dock")))
    slots = dict.fromkeys((slot.name for slot in after.slots), True)
    found = meanwhile(after, InForce.of(before, {}), slots)
    assert verdict(found, EMPIRE, 80, ports=()) == (Verdict.DENY, "")
