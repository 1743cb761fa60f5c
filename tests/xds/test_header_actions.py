"""What of header actions is in the resource, and what cannot be said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig

from policies.ir import FRAMING_HEADERS, HeaderAction, HttpRule, Mismatch, Secret, SlotState
from tests.xds.make import rule, slot
from xds.filters.rbac import RBAC_TYPE, filter_resource
from xds.header_actions import CHAIN_TYPE, MAX_RULES
from xds.rbac_tree import compile_tree, rule_name

LOG_X = HeaderAction("X-A", Mismatch.LOG, "1")


def acting(path: str = "/a", *actions: HeaderAction) -> HttpRule:
    return replace(rule("GET", path), header_actions=actions or (LOG_X,))


def filter_type(*http: HttpRule, state: SlotState = SlotState.ACTIVE) -> str:
    body = filter_resource(slot("web", *http, state=state)).body
    return str(TypedExtensionConfig.FromString(body).typed_config.type_url)


def test_only_slots_with_actions_have_a_chain() -> None:
    assert filter_type(acting()) == CHAIN_TYPE
    assert filter_type(rule("GET", "/a")) == RBAC_TYPE
    assert filter_type(acting("/a", HeaderAction("X-A", Mismatch.DELETE))) == RBAC_TYPE, "nothing to delete"
    assert filter_type(replace(acting(), unavailable="no secret")) == RBAC_TYPE
    assert [filter_type(acting(), state=s) for s in (SlotState.RETIRED, SlotState.DRAINED)] == [RBAC_TYPE] * 2


@pytest.mark.parametrize("name", sorted(FRAMING_HEADERS))
@pytest.mark.parametrize("mismatch", [Mismatch.ADD, Mismatch.DELETE, Mismatch.REPLACE])
def test_what_frames_a_message_can_be_logged_and_not_changed(name: str, mismatch: Mismatch) -> None:
    with pytest.raises(ValueError, match=f"headerMatches: {name.title()} cannot be changed, only LOG is possible"):
        filter_type(acting("/a", HeaderAction(name.title(), mismatch, "x")))
    assert filter_type(acting("/a", HeaderAction(name, Mismatch.LOG, "x"))) == CHAIN_TYPE


def test_rules_with_actions_have_a_bound() -> None:
    many = [acting(f"/{number}") for number in range(MAX_RULES + 1)]
    assert filter_type(*many[:-1]) == CHAIN_TYPE
    with pytest.raises(ValueError, match=f"{MAX_RULES + 1} rules with actions for one port and peer, {MAX_RULES} are"):
        filter_type(*many)


def test_names_of_rules_tell_nothing_of_secrets_and_stand_for_all_that_share_them() -> None:
    one, other = (rule("GET", "/a", x_key=Secret(text)) for text in ("first", "second"))
    assert rule_name(one) == rule_name(other)
    assert compile_tree(slot("web", one, other).rule_set).names[rule_name(one)] == (one, other)
