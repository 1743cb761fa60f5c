"""Header actions on the real Envoy: what the server is sent, and what the log is told (facts 4.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policies.ir import HeaderAction, HeaderMatch, HttpRule, Mismatch, Secret
from tests.features.live import Answer, HttpClient, Origin, origin
from tests.features.world import World, world
from xds import denial

LOG, ADD, DELETE, REPLACE = Mismatch.LOG, Mismatch.ADD, Mismatch.DELETE, Mismatch.REPLACE
Sent = tuple[tuple[str, str], ...]


def acting(path: str, *actions: HeaderAction, **more: Any) -> HttpRule:
    return HttpRule("GET", path, header_actions=actions, **more)


@dataclass
class Story:
    world: World
    origin: Origin
    client: HttpClient

    async def get(self, path: str, *headers: tuple[str, str]) -> Answer:
        return await self.client.get(path, headers=headers)

    async def received(self, path: str, *headers: tuple[str, str]) -> list[str]:
        """The lines that the server was sent of headers whose names begin with X-."""
        assert (await self.get(path, *headers)).status == 200
        lines = self.origin.heads[-1].decode("latin-1").split("\r\n")
        return [line for line in lines if line.lower().startswith("x-")]

    async def told(self) -> dict[str, dict[str, str]]:
        """What the log entry of the last request says of headers."""
        metadata = (await self.world.logged(len(self.origin.heads)))[-1].common_properties.metadata.filter_metadata
        names = (denial.MISSING_HEADERS, denial.REJECTED_HEADERS)
        return {name.rpartition(".")[2]: dict(metadata[name]) for name in names if name in metadata}


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    async with origin() as server, world(tmp_path, server.port) as one:
        await one.apply()
        yield Story(one, server, await one.client())


@pytest.mark.parametrize(
    ("action", "sent", "received", "told"),
    [
        (HeaderAction("X-A", LOG, "1"), (), [], {"missing": {"X-A": "1"}}),
        (HeaderAction("X-A", LOG, "1"), (("X-A", "2"),), ["X-A: 2"], {"missing": {"X-A": "1"}}),
        (HeaderAction("X-A", LOG, "1"), (("X-A", "1"),), ["X-A: 1"], {}),
        (HeaderAction("X-A", LOG), (), [], {"missing": {"X-A": ""}}),
        (HeaderAction("X-A", LOG), (("X-A", ""),), ["X-A: "], {}),
        (HeaderAction("X-A", ADD, "1%2"), (), ["x-a: 1%2"], {"missing": {"X-A": "1%2"}}),
        (HeaderAction("X-A", ADD, "1"), (("X-A", "2"),), ["X-A: 2", "X-A: 1"], {"missing": {"X-A": "1"}}),
        (HeaderAction("X-A", ADD, "1"), (("x-a", "1"),), ["x-a: 1"], {}),
        (HeaderAction("X-A", ADD), (), ["x-a: "], {"missing": {"X-A": ""}}),
        (HeaderAction("X-A", DELETE, "1"), (), [], {}),
        (HeaderAction("X-A", DELETE, "1"), (("X-A", "2"), ("X-A", "1")), [], {"rejected": {"X-A": "2,1"}}),
        (HeaderAction("X-A", DELETE, "1"), (("X-A", "1"),), ["X-A: 1"], {}),
        (HeaderAction("X-A", DELETE), (("X-A", "2"),), ["X-A: 2"], {}),
        (HeaderAction("X-A", REPLACE, "1"), (), ["x-a: 1"], {"missing": {"X-A": "1"}}),
        (
            HeaderAction("X-A", REPLACE, "1"),
            (("X-A", "2"), ("X-A", "3")),
            ["X-A: 1"],
            {"missing": {"X-A": "1"}, "rejected": {"X-A": "2,3"}},
        ),
        (HeaderAction("X-A", REPLACE, "1"), (("X-A", "1"),), ["X-A: 1"], {}),
        (
            HeaderAction("X-Forwarded-Proto", REPLACE, "https"),
            (("X-Forwarded-Proto", "http"),),
            ["X-Forwarded-Proto: https"],
            {"missing": {"X-Forwarded-Proto": "https"}, "rejected": {"X-Forwarded-Proto": "http"}},
        ),
    ],
    ids=str,
)
async def test_an_action_of_each_kind(
    story: Story, action: HeaderAction, sent: Sent, received: list[str], told: dict[str, dict[str, str]]
) -> None:
    await story.world.apply(acting("/a(/.*)?", action))
    got = await story.received("/a/b", *sent)
    assert [line.lower() for line in got] == [line.lower() for line in received]
    assert await story.told() == told


async def test_a_secret_is_sent_and_never_logged(story: Story) -> None:
    secret = Secret("open-sesame")
    await story.world.apply(
        acting("/a", HeaderAction("X-A", REPLACE, secret), headers=(HeaderMatch("x-key", Secret("key")),))
    )
    assert await story.received("/a", ("X-Key", "key"), ("X-A", "yesterdays")) == ["X-Key: key", "X-A: open-sesame"]
    assert await story.told() == {"missing": {"X-A": "[redacted]"}, "rejected": {"X-A": "[redacted]"}}
    assert (await story.get("/a", ("X-Key", "wrong"))).status == 403


async def test_actions_are_taken_in_order_and_of_every_rule_that_matches(story: Story) -> None:
    await story.world.apply(
        HttpRule("GET", "/a/.*"),
        acting("/a/b", HeaderAction("X-A", REPLACE, "1"), HeaderAction("X-A", ADD, "2")),
        acting("/a/b", HeaderAction("X-B", ADD, "3"), headers=(HeaderMatch("x-a"),)),
        acting("/a/c", HeaderAction("X-C", ADD, "4")),
    )
    assert await story.received("/a/b") == ["x-a: 1", "x-a: 2", "x-b: 3"]
    assert await story.received("/a/c", ("X-A", "0")) == ["X-A: 0", "x-c: 4"]
    assert await story.received("/a/d") == []


async def test_what_is_denied_is_neither_changed_nor_told(story: Story) -> None:
    await story.world.apply(acting("/a", HeaderAction("X-A", LOG, "1"), headers=(HeaderMatch("x-b", "1"),)))
    assert (await story.get("/a")).status == 403
    [entry] = await story.world.logged()
    assert denial.MISSING_HEADERS not in entry.common_properties.metadata.filter_metadata
    assert entry.response.response_code_details == "rbac_access_denied_matched_policy[deny]"


async def test_a_live_connection_gets_and_loses_actions_with_the_rules(story: Story) -> None:
    await story.world.apply(HttpRule("GET", "/a"))
    assert await story.received("/a") == []
    await story.world.apply(acting("/a", HeaderAction("X-A", REPLACE, "1")))
    assert await story.received("/a", ("X-A", "spoofed")) == ["X-A: 1"]
    await story.world.apply(HttpRule("GET", "/a"), acting("/b", HeaderAction("X-A", REPLACE, "1")))
    assert await story.received("/a", ("X-A", "own")) == ["X-A: own"]
    await story.world.apply(HttpRule("GET", "/a"))
    assert await story.received("/a") == []
    assert len(story.origin.peers) == 1, "one connection, all the time"


async def test_a_rule_whose_secret_is_not_there_matches_nothing(story: Story) -> None:
    await story.world.apply(
        HttpRule("GET", "/a", unavailable="secret default/token is not there"), HttpRule("GET", "/b")
    )
    assert [(await story.get(path)).status for path in ("/a", "/b")] == [403, 200]
