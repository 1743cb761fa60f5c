"""Proxy ports: kept by who has one, handed out in turn, never two slots on one, never a busy one, never the pod's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.node.ports import ProxyPorts, named_ports, places
from policies.ir import (
    DirectionPolicy,
    EndpointPolicy,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    ServiceAddress,
    Slot,
    Verdict,
)
from policies.types import ALL_PORTS, Direction, PortRange, Protocol

names = st.sets(st.sampled_from([f"ingress:{n}:tcp:80" for n in range(6)]))
HTTP = PortRange(80, 80)


def free(_protocol: Protocol, _port: int) -> bool:
    return True


def slots(*names: str, ports: PortRange = HTTP, protocol: Protocol = Protocol.TCP) -> list[Slot]:
    return [Slot(name, Direction.INGRESS, 256, protocol, ports, RuleSet()) for name in names]


def test_a_slot_keeps_its_port_while_others_come_and_go() -> None:
    first = ProxyPorts(14000, 14009).assign(slots("a", "b"), free)
    second = first.assign(slots("b", "c"), free)
    assert second.by_slot["b"] == first.by_slot["b"]
    assert set(second.by_slot) == {"b", "c"}


def test_a_port_is_not_given_away_again_at_once() -> None:
    ports = ProxyPorts(14000, 14009).assign(slots("a"), free)
    assert ports.assign([], free).assign(slots("b"), free).by_slot["b"] != ports.by_slot["a"]


def test_a_busy_port_is_passed_over() -> None:
    assert ProxyPorts(14000, 14001).assign(slots("a"), lambda _, port: port != 14000).by_slot == {"a": 14001}


def test_a_port_is_busy_for_one_protocol_and_free_for_another() -> None:
    def taken(protocol: Protocol, port: int) -> bool:
        return (protocol, port) != (Protocol.UDP, 14000)

    wanted = [*slots("dns", protocol=Protocol.UDP), *slots("web")]
    assert ProxyPorts(14000, 14002).assign(wanted, taken).by_slot == {"dns": 14001, "web": 14002}
    assert ProxyPorts(14000, 14002).assign(slots("web"), taken).by_slot == {"web": 14000}


def test_a_place_is_a_protocol_and_a_port() -> None:
    node = NodePolicy(1, slots=(*slots("dns", protocol=Protocol.UDP), *slots("web", "unplaced")))
    assert places(node, {"dns": 14001, "web": 14002}) == {(Protocol.UDP, 14001), (Protocol.TCP, 14002)}


def test_when_no_port_is_left_some_go_without() -> None:
    assert ProxyPorts(14000, 14000).assign(slots("a", "b"), free).by_slot == {"a": 14000}


def test_no_port_is_asked_for_twice_although_all_are_busy() -> None:
    asked = []
    ports = ProxyPorts(14000, 14009).assign(slots("a", "b", "c"), lambda _, port: bool(asked.append(port)))
    assert ports.by_slot == {}
    assert asked == list(range(14000, 14010))


def test_a_slot_never_listens_where_its_own_pods_do() -> None:
    ports = ProxyPorts(14000, 14003).assign(slots("a", ports=PortRange(14000, 14001)), free)
    assert ports.by_slot == {"a": 14002}
    assert ProxyPorts(14000, 14001).assign(slots("a", ports=PortRange(14000, 14001)), free).by_slot == {"a": 14000}, (
        "or nowhere"
    )


def test_a_port_that_somebody_names_is_the_last_to_be_taken() -> None:
    ports = ProxyPorts(14000, 14002).assign(slots("a", "b", "c"), free, named={14000})
    assert ports.by_slot == {"a": 14001, "b": 14002, "c": 14000}


def test_what_services_and_rules_speak_of_is_named() -> None:
    peers = (PeerRule((256,), Verdict.ALLOW),)
    ports = (PortPolicy(Protocol.TCP, PortRange(14005, 14006), peers), PortPolicy(Protocol.ANY, ALL_PORTS, peers))
    policy = EndpointPolicy(256, (), DirectionPolicy(True, ports), DirectionPolicy())
    service = ServiceAddress("10.96.0.1", 80, Protocol.TCP, 256, 14007)
    assert named_ports(NodePolicy(1, (policy,), services=(service,))) == {80, 14005, 14006, 14007}


@given(st.lists(names, max_size=8))
def test_no_two_slots_ever_share_a_port(story: list[set[str]]) -> None:
    ports = ProxyPorts(14000, 14011)
    for wanted in story:
        before, ports = ports, ports.assign(slots(*wanted), free)
        assert set(ports.by_slot) == wanted
        assert len(set(ports.by_slot.values())) == len(wanted)
        assert all(ports.by_slot[n] == before.by_slot[n] for n in wanted & set(before.by_slot))


@given(names)
def test_what_is_stored_comes_back(wanted: set[str]) -> None:
    ports = ProxyPorts(14000, 14011).assign(slots(*wanted), free)
    assert ProxyPorts(14000, 14011).restored(ports.to_dict()) == ports


def test_a_narrower_range_forgets_ports_outside_it() -> None:
    ports = ProxyPorts(14000, 14011).assign(slots("a", "b"), free)
    assert ProxyPorts(14001, 14011).restored(ports.to_dict()).by_slot == {"b": 14001}
