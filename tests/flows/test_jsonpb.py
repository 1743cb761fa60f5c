"""Our JSON says what the official encoder says, in the order and spelling of Go's."""

from __future__ import annotations

import json

import pytest
from flow import flow_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given
from observer import observer_pb2

from flows.jsonpb import quote, to_json
from tests.flows.strategies import notices, responses


@given(responses())
def test_it_reads_back_as_the_same_message(response: observer_pb2.GetFlowsResponse) -> None:
    text = to_json(response)
    assert "\n" not in text
    assert json_format.Parse(text, observer_pb2.GetFlowsResponse()) == response


@given(notices())
def test_it_says_what_the_official_encoder_says(response: Message) -> None:
    official = json_format.MessageToJson(response, preserving_proto_field_name=True)
    assert json.loads(to_json(response)) == json.loads(official)


def test_spelling() -> None:
    assert quote('<a>&\u2028"\\\x01é\x7f') == '"\\u003ca\\u003e\\u0026\\u2028\\"\\\\\\u0001é\x7f"'
    flow = flow_pb2.Flow(
        verdict=2,
        uuid="u",
        time={"seconds": 1, "nanos": 120_000_000},
        is_reply={"value": False},
        socket_cookie=2**64 - 1,
        Summary="s",
        policy_log=["x"],
    )
    assert to_json(flow) == (
        '{"time":"1970-01-01T00:00:01.120Z","uuid":"u","verdict":"DROPPED","is_reply":false,'
        '"socket_cookie":"18446744073709551615","Summary":"s","policy_log":["x"]}'
    )


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.5, "0.5"),
        (12.0, "12"),
        (1e-7, "1e-7"),
        (1e21, "1e+21"),
        (123456789.25, "123456789.25"),
        (1e20, "1" + "0" * 20),
        (1.5e-05, "0.000015"),
    ],
)
def test_numbers(rate: float, text: str) -> None:
    assert to_json(observer_pb2.ServerStatusResponse(flows_rate=rate)) == f'{{"flows_rate":{text}}}'
