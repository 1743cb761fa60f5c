"""The rounds of the collector: what is asked of connection tracking, and what is closed then."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from agent.names.collecting import Collecting
from tests.agent.names_town import Town, address, allow

FRESH, OLD, LIVE = "192.0.2.7", "192.0.2.8", "192.0.2.9"


class Connections:
    """Connection tracking."""

    def __init__(self, *alive: str) -> None:
        self.alive = {address(text): {11} for text in alive}
        self.asked: list[set[bytes]] = []
        self.is_blind = False

    def connected(self, addresses: Collection[bytes]) -> Mapping[bytes, Set[int]]:
        if self.is_blind:
            raise OSError("data path: not open")
        self.asked.append(set(addresses))
        return {a: who for a, who in self.alive.items() if a in addresses}


def town() -> Town:
    made = Town(allow("*.org"))
    made.tell("live.org", LIVE, "192.0.2.10", ttl=5)
    made.tell("old.org", OLD, ttl=5)
    made.now += 1000
    made.tell("fresh.org", FRESH, ttl=5)
    return made


async def test_a_round_asks_for_what_has_expired_and_closes_what_is_idle() -> None:
    made, kernel = town(), Connections(LIVE)
    await Collecting(made.learning, kernel.connected, lambda: made.now).round()
    assert kernel.asked == [{address(a) for a in (LIVE, "192.0.2.10", OLD)}]
    assert [made.may(a) for a in (FRESH, LIVE, "192.0.2.10", OLD)] == [True, True, True, False]
    assert made.learning.counts.closed == 1
    kernel.alive = {}
    made.now += 1
    await Collecting(made.learning, kernel.connected, lambda: made.now).round()
    assert not made.may(LIVE)
    assert made.may(FRESH)


async def test_nothing_is_closed_while_nobody_knows_of_connections() -> None:
    made, kernel = town(), Connections()
    kernel.is_blind = True
    await Collecting(made.learning, kernel.connected, lambda: made.now).round()
    assert all(map(made.may, (FRESH, LIVE, OLD)))


async def test_where_nothing_has_expired_nobody_is_asked() -> None:
    made, kernel = Town(allow("*.org")), Connections()
    made.tell("fresh.org", FRESH)
    await Collecting(made.learning, kernel.connected, lambda: made.now).round()
    assert kernel.asked == []


async def test_names_that_nobody_selects_are_forgotten_an_hour_later() -> None:
    made, kernel = Town(allow("a.org")), Connections()
    made.tell("b.org", FRESH)
    made.now += 3600
    await Collecting(made.learning, kernel.connected, lambda: made.now).round()
    assert len(made.names.overheard) == 1
    made.now += 60
    await Collecting(made.learning, kernel.connected, lambda: made.now).round()
    assert not len(made.names.overheard)
