"""CEL expressions about flows: compiled and type-checked once, judged by Google's own evaluator, within bounds. Pure.

`_flow` is the flow, names of enums are looked up in the package `flow`, the result must be a bool, and an expression
that fails on a flow makes its filter false (facts section 3).

The evaluator stops after 10,000 rounds of a comprehension and below 32 levels; that is not enough, for one round may
run a regular expression: ten minutes of our only thread were seen to go that way. So what an expression may cost is
reckoned before it runs, and forms whose cost cannot be reckoned (lists that are computed, patterns that are no
constants) are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from flow import flow_pb2
from google.protobuf.any_pb2 import Any as Packed

from flows.patterns import regexes

CHARS_MAX = 4096  # of all expressions of one request
COST_MAX = 10_000  # steps, roughly, that one expression may take
LIST_SIZE = 100  # elements that a list of a flow (labels, headers) is reckoned with
COMPARISON = 5  # steps of comparing values, which may be messages
REGEX_COST = 10  # steps of a regular expression, besides those for its size
REGEX_LARGE = 500  # instructions from which on a regular expression may outgrow the automaton that makes it quick
KEPT = 64  # compiled expressions that are remembered
COMPARISONS = frozenset(("_==_", "_!=_", "@in"))
JOINS = frozenset(("_+_",))


class CelError(ValueError):
    """An expression that cannot be compiled, or might take too long; one line."""


def compile_cel(expressions: Sequence[str]) -> Callable[[flow_pb2.Flow], bool]:
    """Whether one of these, at least one, is true of a flow. Raises CelError."""
    programs, costs = zip(*map(_program, expressions), strict=True)
    if sum(costs) > COST_MAX:
        raise _refused(f"it may take {sum(costs)} steps, more than {COST_MAX}")

    def matches(flow: flow_pb2.Flow) -> bool:
        for program in programs:
            try:
                value = program.eval(data={"_flow": flow}).value()
            except RuntimeError:
                return False
            if not isinstance(value, bool):  # an error, as a value
                return False
            if value:
                return True
        return False

    return matches


@lru_cache(KEPT)
def _program(text: str) -> tuple[Any, int]:
    """A compiled expression, and what it may cost."""
    if len(text) > CHARS_MAX:
        raise _refused(f"more than {CHARS_MAX} characters")
    try:
        program = _environment().compile(text)
        kind = program.return_type().name()
        tree = _tree(program.serialize())
    except RuntimeError as error:
        raise _refused(_line(str(error))) from None
    if kind != "BOOL":
        raise _refused(f'got "{kind.lower()}", wanted "bool" result type')
    return program, _Reckoner().cost(tree)


@lru_cache(1)
def _environment() -> Any:
    """Loaded when the first expression comes: the evaluator takes ten megabytes."""
    from cel_expr_python import cel

    return cel.NewEnv(variables={"_flow": cel.Type("flow.Flow")}, container="flow")


def _tree(serialized: bytes) -> Any:
    from cel.expr import checked_pb2

    return checked_pb2.CheckedExpr.FromString(Packed.FromString(serialized).value).expr


def _line(text: str) -> str:
    """The first of the evaluator's complaints, without the drawing of where it is."""
    first = text.removeprefix("INVALID_ARGUMENT: ").splitlines()[0] if text else "refused"
    return first.removeprefix("ERROR: ").removesuffix(" [INVALID_ARGUMENT]")


class _Reckoner:
    """The cost of a checked expression, in steps. Raises CelError for what cannot be reckoned.

    The depth of what is reckoned is bounded by the evaluator's parser (32 levels).
    """

    def cost(self, tree: Any) -> int:
        kind = tree.WhichOneof("expr_kind")
        return 1 + (getattr(self, f"_{kind}")(tree) if kind else 0)

    def _sum(self, trees: Iterable[Any]) -> int:
        return sum(self.cost(tree) for tree in trees)

    def _const_expr(self, tree: Any) -> int:
        return 0

    def _ident_expr(self, tree: Any) -> int:
        return 0

    def _select_expr(self, tree: Any) -> int:
        return self.cost(tree.select_expr.operand)

    def _list_expr(self, tree: Any) -> int:
        return self._sum(tree.list_expr.elements)

    def _struct_expr(self, tree: Any) -> int:
        entries = tree.struct_expr.entries
        return sum(self.cost(entry.value) + self.cost(entry.map_key) for entry in entries)

    def _call_expr(self, tree: Any) -> int:
        call = tree.call_expr
        own = COMPARISON if call.function in COMPARISONS else 0
        if call.function == "matches":
            own = self._regex(call.args[-1])
        target = self.cost(call.target) if call.HasField("target") else 0
        return own + target + self._sum(call.args)

    def _regex(self, pattern: Any) -> int:
        if pattern.const_expr.WhichOneof("constant_kind") != "string_value":
            raise _refused("the pattern of matches() has to be a constant text")
        try:
            (compiled,) = regexes([pattern.const_expr.string_value])
        except ValueError as error:
            raise _refused(str(error)) from None
        size = int(compiled.programsize)
        return REGEX_COST + size + size * size // REGEX_LARGE

    def _comprehension_expr(self, tree: Any) -> int:
        loop = _loop(tree.comprehension_expr)
        return self.cost(loop.over) + _size(loop.over) * (1 + self._sum(loop.body))


class _Loop(NamedTuple):
    over: Any
    body: tuple[Any, ...]


def _loop(found: Any) -> _Loop:
    """What is run through, and what is done each time. Lists that are made anew could be multiplied without end."""
    if found.accu_init.WhichOneof("expr_kind") == "list_expr" and not _keeps_elements(found):
        raise _refused("map() is not supported; all(), exists(), exists_one() and filter() are")
    return _Loop(found.iter_range, (found.loop_condition, found.loop_step, found.result))


def _keeps_elements(found: Any) -> bool:
    """Of filter(): what it adds to its list is the element itself."""
    step = found.loop_step.call_expr
    if step.function != "_?_:_":
        return False
    added = step.args[1].call_expr
    if added.function not in JOINS or len(added.args) != 2:
        return False
    (element,) = added.args[1].list_expr.elements
    return bool(element.ident_expr.name == found.iter_var)


def _size(over: Any) -> int:
    """How many elements are run through at most."""
    match over.WhichOneof("expr_kind"):
        case "select_expr" if _is_of_flow(over):
            return LIST_SIZE
        case "list_expr" if all(element.HasField("const_expr") for element in over.list_expr.elements):
            return len(over.list_expr.elements)
        case "comprehension_expr":
            return _size(_loop(over.comprehension_expr).over)
    raise _refused("all(), exists(), exists_one() and filter() run through lists of the flow, or of constants, only")


def _is_of_flow(over: Any) -> bool:
    """Whether this is a field of the flow or of a part of it, and not of a message that the expression makes."""
    while over.HasField("select_expr"):
        over = over.select_expr.operand
    return bool(over.HasField("ident_expr"))


def _refused(why: str) -> CelError:
    return CelError(f"error compiling CEL expression: {why}")
