"""What the agent is taught, and which answers wait for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from l7proxy.dns.answers import Learned
from l7proxy.dns.lessons import LESSONS_MAX, SHARED_MAX, Lessons
from policies.ir import FqdnSelector

POD, OTHER = "10.0.0.2", "10.0.0.3"
A1, A2 = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))


def lessons(*patterns: str, targets: bool = False) -> Lessons:
    made = Lessons()
    made.select((FqdnSelector(pattern=one) for one in patterns or ("*.x.io.",)), targets=targets)
    return made


def learned(*addresses: bytes, name: str = "api.x.io.", ttl: int = 30, targets: tuple[str, ...] = ()) -> Learned:
    return Learned(name, addresses or (A1,), ttl, targets)


def known(made: Lessons, one: Learned, now: float = 0.0) -> None:
    made.in_force(made.take(POD, one, now).waits_for)


def test_an_answer_about_a_name_that_matters_waits_until_its_addresses_are_in_force() -> None:
    made = lessons()
    taken = made.take(POD, learned(), 100.0)
    assert taken.lesson is not None
    assert taken.waits_for == taken.lesson.number == 1
    made.in_force(1)
    again = made.take(POD, learned(), 100.5)
    assert (again.lesson, again.waits_for) == (None, 0)


def test_an_answer_about_any_other_name_does_not_wait_and_is_mentioned_once() -> None:
    made = lessons()
    taken = made.take(POD, learned(name="other.org."), 0.0)
    assert taken.lesson is not None
    assert (taken.lesson.number, taken.waits_for) == (0, 0)
    assert made.take(POD, learned(name="other.org."), 0.9).lesson is None
    assert made.take(POD, learned(name="other.org."), 1.1).lesson is not None, "its time has moved"
    assert len(made) == 0


def test_a_new_address_of_a_known_name_waits() -> None:
    made = lessons()
    known(made, learned(A1))
    assert made.take(POD, learned(A1, A2), 1.0).waits_for == 2


def test_what_one_pod_has_learned_is_open_for_all_and_each_ones_time_is_told() -> None:
    made = lessons()
    known(made, learned())
    taken = made.take(OTHER, learned(), 5.0)
    assert taken.lesson is not None
    assert (taken.lesson.pod, taken.waits_for) == (OTHER, 0)
    assert made.take(OTHER, learned(A2), 5.0).waits_for != 0


def test_where_addresses_are_not_shared_what_one_pod_knows_another_one_does_not() -> None:
    made = Lessons()
    made.select((FqdnSelector(pattern="*.x.io."),), targets=False, shares=False)
    known(made, learned())
    assert made.take(OTHER, learned(), 0.0).waits_for == 2


def test_a_pod_that_may_have_gone_is_not_believed_for_as_long_as_it_had_learned() -> None:
    made = lessons()
    known(made, learned(ttl=86_400))
    assert made.take(OTHER, learned(), SHARED_MAX - 1.0).waits_for == 0
    assert made.take("10.0.0.4", learned(), SHARED_MAX + 1.0).waits_for != 0
    assert made.take(POD, learned(), SHARED_MAX + 1.0).waits_for != 0, "another pod may have its address"


def test_who_asks_again_and_again_never_waits_again() -> None:
    made = lessons()
    known(made, learned(ttl=86_400))
    for round_ in range(1, 20):
        taken = made.take(POD, learned(ttl=86_400), round_ * 200.0)
        assert taken.lesson is not None
        assert taken.waits_for == 0
        made.in_force(taken.lesson.number)


def test_while_the_agent_is_away_a_pod_is_believed_for_as_long_as_was_confirmed() -> None:
    made = lessons()
    known(made, learned(ttl=86_400))
    made.away(SHARED_MAX + 1000.0)
    assert made.take(POD, learned(), SHARED_MAX + 2000.0).waits_for == 0
    assert made.take(OTHER, learned(), SHARED_MAX + 2000.0).waits_for != 0


def test_a_pod_with_two_addresses_is_answered_by_either_while_the_agent_is_away() -> None:
    made = lessons()
    known(made, learned())
    made.away(10.0)
    for second in (11.0, 5000.0):
        assert made.take("fd00::2", learned(), second).waits_for == 0


def test_a_renewal_is_told_and_not_waited_for() -> None:
    made = lessons()
    known(made, learned())
    taken = made.take(POD, learned(), 20.0)
    assert taken.lesson is not None
    assert taken.waits_for == 0


def test_what_the_agent_has_not_confirmed_is_not_known_for_longer() -> None:
    """It may close an address when the time is over that it was told."""
    made = lessons()
    known(made, learned())
    assert made.take(POD, learned(), 20.0).waits_for == 0
    assert made.take(POD, learned(), 31.5).waits_for == 3
    made.in_force(3)
    assert made.take(POD, learned(), 60.0).waits_for == 0


def test_many_who_ask_at_once_wait_for_one_lesson() -> None:
    made = lessons()
    first = made.take(POD, learned(A1, A2), 0.0)
    rest = [made.take(POD, learned(A2, A1), 0.01) for _ in range(10)]
    assert {one.waits_for for one in rest} == {first.waits_for}
    assert {one.lesson for one in rest} == {None}


def test_what_cannot_be_waits_again_next_time() -> None:
    made = lessons()
    made.cannot_be(made.take(POD, learned(), 0.0).waits_for)
    assert made.take(POD, learned(), 0.1).waits_for == 2


def test_while_the_agent_is_away_what_was_known_stays_known() -> None:
    made = lessons()
    known(made, learned(A1))
    made.away(10.0)
    made.away(500.0)
    assert made.take(POD, learned(A1), 1000.0).waits_for == 0
    assert made.take(POD, learned(A2), 1000.0).waits_for != 0, "nobody is there to open it"
    told = made.back()
    made.here()
    assert [(one.learned.addresses, one.at) for one in told] == [((A1,), 1000.0), ((A2,), 1000.0)]
    assert made.take(POD, learned(A1), 1000.1).waits_for == told[0].number, "the new agent may have closed it"


def test_while_the_agent_is_away_a_name_is_one_lesson() -> None:
    made = lessons()
    made.away(0.0)
    for second in range(1000):
        made.take(POD, learned(), float(second))
    (lesson,) = made.back()
    assert lesson.at + lesson.seconds >= 999 + 30


def test_with_targets_the_name_at_the_end_of_a_chain_matters_too() -> None:
    chain = learned(name="www.org.", targets=("edge.x.io.",))
    assert lessons().take(POD, chain, 0.0).waits_for == 0
    made = lessons(targets=True)
    assert made.take(POD, chain, 0.0).waits_for == 1
    made.in_force(1)
    assert made.take(POD, learned(name="edge.x.io."), 0.1).waits_for == 0


def test_lessons_are_bounded_and_whoever_comes_then_cannot_be_answered() -> None:
    made = lessons()
    for number in range(LESSONS_MAX):
        assert not made.take(POD, learned(name=f"n{number}.x.io."), 0.0).is_full
    assert made.take(POD, learned(name="one-more.x.io."), 0.0).is_full
    made.in_force(7)
    assert not made.take(POD, learned(name="one-more.x.io."), 0.0).is_full


steps = st.tuples(
    st.sampled_from(["ask", "answer", "refuse", "away", "back", "here", "pass"]), st.integers(0, 3), st.integers(0, 40)
)


@given(st.lists(steps, max_size=60))
def test_no_answer_is_released_whose_addresses_the_agent_may_have_closed(story: list[tuple[str, int, int]]) -> None:
    """Whatever happens: an address that need not wait was confirmed for now, or when the agent went."""
    made, now, away, is_heard = lessons(), 0.0, None, True
    confirmed: dict[bytes, float] = {}
    waiting: dict[int, tuple[bytes, ...]] = {}
    until: dict[int, float] = {}
    for step, which, number in story:
        address = (bytes((192, 0, 2, which)),)
        match step:
            case "ask":
                taken = made.take(POD, learned(*address, ttl=number), now)
                if taken.lesson is not None:
                    waiting[taken.lesson.number] = address
                if not taken.waits_for:
                    assert confirmed.get(address[0], -1.0) > (now if away is None else away)
                else:
                    assert taken.waits_for in waiting
                until = {lesson.number: lesson.at + lesson.seconds for lesson in made._open.values()}
            case "answer" | "refuse" if is_heard and waiting:
                made.here()
                away = None
                chosen = sorted(waiting)[number % len(waiting)]
                if step == "answer":
                    (one,) = waiting[chosen]
                    confirmed[one] = max(confirmed.get(one, 0.0), until[chosen])
                    made.in_force(chosen)
                else:
                    made.cannot_be(chosen)
                del waiting[chosen]
            case "away":
                made.away(now)
                away, is_heard = now if away is None else away, False
            case "back":
                made.back()
                is_heard = True
            case "here" if is_heard:
                made.here()
                away = None
            case "pass":
                now += number
