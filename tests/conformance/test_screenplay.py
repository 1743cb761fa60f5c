"""The story as data: its policies exist, and what it waits for can be matched."""

from __future__ import annotations

import re
import shlex

from conformance.blueprint import star_wars
from conformance.screenplay import STORY
from conformance.story import EXAMPLES


def test_each_policy_is_an_example_and_each_ship_a_pod() -> None:
    ships = {pod.alias for pod in star_wars().pods}
    for chapter in STORY:
        assert not chapter.policy or (EXAMPLES / chapter.policy).is_file()
        for move in chapter.moves:
            assert move.ship in ships
            assert shlex.split(move.curl)[0] == "curl"
            assert move.output
            for pattern in move.flows:
                re.compile(pattern)


def test_the_story_has_the_four_chapters_of_the_demo() -> None:
    assert [chapter.policy for chapter in STORY] == ["", "rule1-l4.yaml", "rule1-http.yaml", ""]
