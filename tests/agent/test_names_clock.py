"""The time of names: the time of day jumps, and no name lives longer or shorter for it."""

from __future__ import annotations

import time

import pytest

from agent.names.keeping import CLOCKS, steady
from agent.proxies.inside.dns_reports import DnsReports
from l7proxy.dns.answers import Learned
from policies.ir import FqdnSelector

HOUR = 3600.0


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_names_do_not_expire_because_somebody_sets_the_clock(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, before, set_by = steady(), time.time(), time.time
    monkeypatch.setattr(time, "time", lambda: set_by() + jump)
    assert abs(clock() - before) < 60
    assert abs(CLOCKS.now() - before) < 60


async def test_a_lesson_is_told_with_its_age_whatever_the_time_of_day_is(monkeypatch: pytest.MonkeyPatch) -> None:
    reports, set_by = DnsReports(lambda urgent: None), time.time
    reports.select((FqdnSelector(pattern="*"),), targets=False)
    monkeypatch.setattr(time, "time", lambda: set_by() + HOUR)
    assert reports.learned("10.0.0.2", (Learned("a.x.io.", (bytes(4),), 30),)) is not None
    batch = reports.batch()
    assert batch is not None
    (lesson,) = batch.learned
    assert lesson.age_ms < 60_000
