"""Kafka's APIs by name and number, and the roles."""

from __future__ import annotations

import pytest

from policies.kafka_keys import CILIUM_ROLES, KEYS, ROLES, key_of, name_of, role_keys


def test_names_and_numbers_are_each_others() -> None:
    assert [name_of(key) for key in range(len(KEYS))] == list(KEYS)
    assert all(key_of(name) == key for name, key in KEYS.items())


@pytest.mark.parametrize(
    ("name", "key"),
    [("produce", 0), ("Produce", 0), ("offsets", 2), ("apiversions", 18), ("alterconfigs", 33), ("sharefetch", 78)],
)
def test_the_numbers_are_kafkas(name: str, key: int) -> None:
    assert key_of(name) == key


def test_an_unknown_name_has_no_number_and_an_unknown_number_is_its_own_name() -> None:
    assert key_of("explode") is None
    assert name_of(1000) == "1000"
    assert name_of(-1) == "-1"


def test_cilium_knows_the_first_thirty_four() -> None:
    assert key_of("alterconfigs", cilium=True) == 33
    assert key_of("saslauthenticate", cilium=True) is None


@pytest.mark.parametrize("role", ["produce", "consume"])
def test_a_role_of_today_has_all_that_ciliums_has(role: str) -> None:
    assert set(CILIUM_ROLES[role]) < set(ROLES[role])
    assert role_keys(role.upper()) == tuple(sorted(ROLES[role]))
    assert role_keys(role, cilium=True) == CILIUM_ROLES[role]
