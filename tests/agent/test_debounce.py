"""A burst of events is one event."""

from __future__ import annotations

import asyncio

from agent.node.debounce import until_quiet


async def test_a_burst_is_taken_whole() -> None:
    events = [True, True, True, False, True]
    await until_quiet(lambda: events.pop(0), 0.001, 10.0)
    assert events == [True], "the one after the silence is another burst"


async def test_what_never_becomes_quiet_is_not_waited_for() -> None:
    async with asyncio.timeout(5.0):
        await until_quiet(lambda: True, 0.001, 0.02)
