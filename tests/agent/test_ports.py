"""Proxy ports: kept by who has one, handed out in turn, never two slots on one, never a busy one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ports import PortsExhausted, ProxyPorts

names = st.sets(st.sampled_from([f"ingress:{n}:tcp:80" for n in range(6)]))


def free(_port: int) -> bool:
    return True


def test_a_slot_keeps_its_port_while_others_come_and_go() -> None:
    first = ProxyPorts(14000, 14009).assign(["a", "b"], free)
    second = first.assign(["b", "c"], free)
    assert second.by_slot["b"] == first.by_slot["b"]
    assert set(second.by_slot) == {"b", "c"}


def test_a_port_is_not_given_away_again_at_once() -> None:
    ports = ProxyPorts(14000, 14009).assign(["a"], free)
    assert ports.assign([], free).assign(["b"], free).by_slot["b"] != ports.by_slot["a"]


def test_a_busy_port_is_passed_over() -> None:
    assert ProxyPorts(14000, 14001).assign(["a"], lambda port: port != 14000).by_slot == {"a": 14001}


def test_no_port_left_says_what_to_do() -> None:
    with pytest.raises(PortsExhausted, match="widen --proxy-ports"):
        ProxyPorts(14000, 14000).assign(["a", "b"], free)


@given(st.lists(names, max_size=8))
def test_no_two_slots_ever_share_a_port(story: list[set[str]]) -> None:
    ports = ProxyPorts(14000, 14011)
    for wanted in story:
        before, ports = ports, ports.assign(wanted, free)
        assert set(ports.by_slot) == wanted
        assert len(set(ports.by_slot.values())) == len(wanted)
        assert all(ports.by_slot[n] == before.by_slot[n] for n in wanted & set(before.by_slot))


@given(names)
def test_what_is_stored_comes_back(wanted: set[str]) -> None:
    ports = ProxyPorts(14000, 14011).assign(wanted, free)
    assert ProxyPorts(14000, 14011).restored(ports.to_dict()) == ports


def test_a_narrower_range_forgets_ports_outside_it() -> None:
    ports = ProxyPorts(14000, 14011).assign(["a", "b"], free)
    assert ProxyPorts(14001, 14011).restored(ports.to_dict()).by_slot == {"b": 14001}
