"""The bootstrap: sockets where we say, the protocol we choose, and no way out of the node."""

from __future__ import annotations

import json

import pytest

from xds.bootstrap import bootstrap


@pytest.mark.parametrize(("protocol", "api_type"), [("delta", "DELTA_GRPC"), ("sotw", "GRPC")])
def test_everything_is_on_unix_sockets(protocol: str, api_type: str) -> None:
    text = bootstrap("node-1", "/run/deflector/xds.sock", "/run/deflector/admin.sock", protocol=protocol)  # type: ignore[arg-type]
    config = json.loads(text)
    assert config["node"] == {"id": "node-1", "cluster": "deflector"}
    assert config["admin"]["address"]["pipe"]["path"] == "/run/deflector/admin.sock"
    assert config["dynamic_resources"]["ads_config"]["api_type"] == api_type
    assert text.count("/run/deflector/xds.sock") == 2
    assert "socket_address" not in text
    assert "stats_sinks" not in text


def test_the_same_arguments_give_the_same_text() -> None:
    assert bootstrap("n", "/x", "/a") == bootstrap("n", "/x", "/a")
