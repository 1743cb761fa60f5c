"""Whatever happens in whatever order: what was told as in force is open for as long as policy selects it, and nothing
else is. The model is a set of pairs, and the policies that the kernel has and is to have."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from policies.dns_patterns import Dialect, NameSet
from policies.ir import NodePolicy
from tests.agent.names_town import TIE, XWING, Town, address, allow
from tests.policies.language import cidr, clause, to

NAMES = ("a.org", "b.org", "x.cdn.net", "deep.x.cdn.net")
SELECTORS = ("a.org", "b.org", "*.org", "*.cdn.net", "**.cdn.net", "*")
ADDRESSES = ("198.51.100.1", "198.51.100.2", "203.0.113.1")
PREFIX = "198.51.100.0/24"  # of an allow at another port

chosen = st.tuples(st.frozensets(st.sampled_from(SELECTORS), max_size=3), st.booleans())
Chosen = tuple[frozenset[str], bool]


def policies_of(what: Chosen):  # type: ignore[no-untyped-def]
    selectors, with_prefix = what
    extra = [clause([cidr(PREFIX)], to(80))] if with_prefix else []
    return (allow(*sorted(selectors), extra=extra),) if selectors else ()


def selects(what: Chosen, name: str) -> bool:
    names = NameSet([s for s in what[0] if "*" not in s], [s for s in what[0] if "*" in s], Dialect.TO_FQDNS)
    return f"{name}." in names


class Story(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.wanted: Chosen = (frozenset({"a.org"}), False)
        self.town = Town(*policies_of(self.wanted))
        self.kernel: Chosen = self.wanted
        self.underway: tuple[Chosen, NodePolicy] | None = None
        self.heard = 0
        self.asked: dict[int, tuple[str, tuple[str, ...]]] = {}
        self.held: set[tuple[str, str]] = set()  # what answers have taught
        self.open: set[tuple[str, str]] = set()  # ... and proxies were told

    @rule(
        name=st.sampled_from(NAMES),
        to=st.sets(st.sampled_from(ADDRESSES), min_size=1),
        by=st.sampled_from([TIE, XWING]),
    )
    def ask(self, name: str, to: set[str], by: str) -> None:
        number = self.town.tell(name, *sorted(to), by=by, ttl=30)
        self.asked[number] = (name, tuple(to))
        self.held |= {(name, a) for a in to}
        self.hear()

    @rule(what=chosen)
    def edit(self, what: Chosen) -> None:
        self.wanted = what
        self.town.policies = policies_of(what)

    @rule()
    def compile(self) -> None:
        """And whatever was under way has failed."""
        self.underway = (self.wanted, self.town.compile())

    @rule()
    def program(self) -> None:
        if self.underway is not None:
            self.kernel, node = self.underway
            self.town.kernel.program(node)
            self.town.learning.enforced(node.endpoints)
            self.underway = None
            self.hear()

    @rule()
    def rest(self) -> None:
        self.underway = None
        self.town.loop()
        self.kernel = self.wanted
        self.hear()
        for number in self.asked:
            assert number in self.town.in_force
        for where in ADDRESSES:
            expected = any(selects(self.wanted, name) for name, a in self.held if a == where)
            assert bool(self.wanted[0] and self.town.may(where)) == expected

    @rule(alive=st.sets(st.sampled_from(ADDRESSES)))
    def collect(self, alive: set[str]) -> None:
        self.town.collect(sorted(alive))
        self.forget()

    @rule()
    def restart(self) -> None:
        self.town = Town(*policies_of(self.wanted), after=self.town)
        self.underway = None
        self.kernel = self.wanted
        self.asked, self.heard = {}, 0
        self.forget()

    def forget(self) -> None:
        """What is held no more is not in force any more; but what nobody selected is not even written down."""
        book, overheard = self.town.names.book, self.town.names.overheard
        self.held = {
            (name, a) for name, a in self.held if any(b.holders(f"{name}.", address(a)) for b in (book, overheard))
        }
        self.open = {(name, a) for name, a in self.open if book.holders(f"{name}.", address(a))}

    def hear(self) -> None:
        """What is answered. Of a name that no policy selects as last compiled, nothing is promised."""
        compiled = self.underway[0] if self.underway is not None else self.kernel
        for number in self.town.in_force[self.heard :]:
            name, where = self.asked[number]
            if selects(compiled, name):
                self.open |= {(name, a) for a in where if (name, a) in self.held}
        self.heard = len(self.town.in_force)
        assert not self.town.cannot_be

    @invariant()
    def what_was_told_is_open(self) -> None:
        """By the policy that the kernel has, as long as the next one selects it as well."""
        for name, where in self.open:
            if selects(self.kernel, name) and (self.underway is None or selects(self.underway[0], name)):
                assert self.town.may(where), (name, where)

    @invariant()
    def what_was_not_learned_is_closed(self) -> None:
        """But what is collected between two policies goes with the second."""
        for where in ADDRESSES:
            names = {name for name, a in self.held if a == where}
            if self.underway is None and self.kernel[0] and not any(selects(self.kernel, name) for name in names):
                assert not self.town.may(where), where


Story.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestStory = Story.TestCase
