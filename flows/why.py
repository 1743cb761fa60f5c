"""Under a line of `observe --why`: what the policy log of the flow says. Pure.

A flow's answer has the reason of its request; it is not said twice in a row.
"""

from __future__ import annotations

from flow import flow_pb2

from policies.errors import one_line

INDENT = "    "


class Why:
    """The reasons of one stream of flows."""

    def __init__(self) -> None:
        self._said: tuple[str, ...] = ()

    def lines(self, flow: flow_pb2.Flow) -> str:
        """One indented line for each thing that is said; whatever it holds, none of them is a line of its own."""
        said = tuple(flow.policy_log)
        is_repeated = flow.is_reply.value and said == self._said
        self._said = said
        return "" if is_repeated else "".join(f"{INDENT}{one_line(text)}\n" for text in said)
