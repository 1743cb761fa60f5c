"""CEL expressions about flows: what they say, what is refused, and that nobody can keep us busy with them."""

from __future__ import annotations

import pytest
from flow import flow_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cel import CHARS_MAX, CelError, compile_cel
from tests.flows.make import denied, drop, exchange, flows_in, intake, message
from tests.flows.strategies import flows


def passing(*expressions: str) -> str:
    """Which of request, response, denied request, its 403 and a dropped packet pass, by number."""
    made = intake()
    made.access_log(message(*exchange(headers={"x-has-exhaust": "yes"}), denied()))
    made.packets([drop()])
    wanted = compile_cel(expressions)
    return "".join(str(number) for number, flow in enumerate(flows_in(made.ring)) if wanted(flow))


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        (["true"], "01234"),
        (["_flow.verdict == Verdict.DROPPED"], "24"),
        (["_flow.verdict == flow.Verdict.DROPPED && has(_flow.l7)"], "2"),
        (["_flow.source.labels.exists(label, label == 'k8s:org=alliance')"], "4"),
        (["_flow.source.labels.filter(label, label.startsWith('k8s:org')).exists(l, l.endsWith('=empire'))"], "0123"),
        (["_flow.l7.http.headers.exists_one(h, h.key == 'X-Has-Exhaust' && h.value.matches('^y.s$'))"], "0"),
        (["[403u, 404u].exists(code, code == _flow.l7.http.code)"], "3"),
        (["_flow.l7.http.code in [200u, 204u]", "_flow.l4.TCP.flags.SYN"], "14"),
        (["_flow.time > timestamp('2020-01-01T00:00:00Z')"], "01234"),
        (["_flow.source.pod_name.contains('fighter') ? true : false"], "02"),
    ],
)
def test_what_expressions_say(expressions: list[str], expected: str) -> None:
    assert passing(*expressions) == expected


def test_an_expression_that_fails_makes_its_filter_false_at_once() -> None:
    assert passing("_flow.l7.http.headers[0].key == 'X-Has-Exhaust'", "true") == "0"
    assert passing("true", "1 / 0 == 1") == "01234"


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("_flow.verdict", 'got "int", wanted "bool" result type'),
        ("_flow.nope == 1", "undefined field 'nope'"),
        ("_flow.verdict == 'DROPPED'", "no matching overload"),
        ("_flow.uuid ==", "Syntax error"),
        ("", "Syntax error"),
        ("((" * 100 + "true" + "))" * 100, "recursion limit exceeded"),
        ("x" * (CHARS_MAX + 1), "more than 4096 characters"),
        ("_flow.uuid.matches('(')", "missing \\)"),
        ("_flow.uuid.matches(_flow.uuid)", "has to be a constant text"),
        ("_flow.uuid.matches('" + "(x?){200}" * 20 + "')", "it may take [0-9]+ steps, more than 10000"),
        (f"{list(range(101))}.all(a, {list(range(101))}.all(b, a == b))", "it may take [0-9]+ steps"),
        ("_flow.source.labels.map(l, l + l).map(l, l + l).size() > 0", "map\\(\\) is not supported"),
        ("['a'].all(x, [x + x].all(y, [y + y].all(z, z != '')))", "lists of the flow, or of constants, only"),
        ("Endpoint{labels: ['a']}.labels.all(x, x == 'a')", "lists of the flow, or of constants, only"),
        ("{'a': 1}.all(key, key == 'a')", "lists of the flow, or of constants, only"),
    ],
)
def test_what_is_refused(expression: str, complaint: str) -> None:
    with pytest.raises(CelError, match=f"^error compiling CEL expression: .*{complaint}[^\n]*$"):
        compile_cel([expression])


def test_expressions_of_one_filter_are_reckoned_together() -> None:
    costly = "_flow.source.labels.all(label, label != 'k8s:number={}')"
    compile_cel([costly.format(number) for number in range(5)])
    with pytest.raises(CelError, match=r"it may take [0-9]+ steps, more than 10000"):
        compile_cel([costly.format(number) for number in range(15)])


WORDS = st.sampled_from(
    (
        *("_flow", ".", "labels", "source", "l7", "http", "url", "exists", "all", "filter", "map", "matches", "size"),
        *("(", ")", "[", "]", ",", "?", ":", "&&", "||", "!", "==", "+", "'a'", "1", "2u", "x", "y", "has", "in"),
        *("timestamp", "Verdict", "DROPPED", "Flow", "{", "}"),
    )
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(WORDS, max_size=12).map(" ".join), st.text(max_size=20)), flows())
def test_nothing_but_the_error_escapes(expression: str, flow: flow_pb2.Flow) -> None:
    complaint = ""
    try:
        compile_cel([expression])(flow)
    except CelError as error:
        complaint = str(error)
    assert "\n" not in complaint
