"""Field masks keep what was asked for."""

from __future__ import annotations

import pytest
from flow import flow_pb2
from hypothesis import given
from hypothesis import strategies as st

from flows.mask import HUBBLE_DEFAULT, Mask, MaskError
from tests.flows.strategies import flows


def masked(flow: flow_pb2.Flow, *paths: str) -> flow_pb2.Flow:
    mask = Mask(paths)
    return flow_pb2.Flow.FromString(mask.parents + mask.narrow(flow.SerializeToString()))


FLOW = flow_pb2.Flow(
    verdict=1,
    uuid="u",
    Summary="s",
    source={"pod_name": "p", "identity": 7, "labels": ["a"]},
    destination_names=["dns.google"],
    traffic_direction=1,
)


def test_no_mask_keeps_everything() -> None:
    assert masked(FLOW) == FLOW


def test_paths() -> None:
    assert masked(FLOW, "verdict", "source.pod_name") == flow_pb2.Flow(verdict=1, source={"pod_name": "p"})


def test_a_nested_path_leaves_its_parent_behind() -> None:
    assert masked(FLOW, "destination.pod_name") == flow_pb2.Flow(destination={})


def test_the_whole_and_a_part_of_it_are_the_whole() -> None:
    assert masked(FLOW, "source", "source.pod_name").source == FLOW.source
    assert masked(FLOW, "source.pod_name", "source").source == FLOW.source


@pytest.mark.parametrize("path", ["nothing", "source.nothing", "verdict.x", "source_names.x", "", "source.", "time.x"])
def test_paths_that_name_nothing(path: str) -> None:
    with pytest.raises(MaskError, match="invalid fieldmask"):
        Mask([path])


def test_hubbles_own_mask_is_completed_by_what_its_output_shows() -> None:
    shown = masked(FLOW, *HUBBLE_DEFAULT)
    assert list(shown.destination_names) == ["dns.google"]
    assert shown.traffic_direction == flow_pb2.INGRESS
    assert shown.uuid == ""
    assert list(masked(FLOW, *sorted(HUBBLE_DEFAULT)[1:]).destination_names) == []


NAMES = [field.name for field in flow_pb2.Flow.DESCRIPTOR.fields]


@given(flows(), st.sets(st.sampled_from(NAMES), min_size=1))
def test_top_level_masks(flow: flow_pb2.Flow, paths: set[str]) -> None:
    left = masked(flow, *paths)
    assert {field.name for field, _ in left.ListFields()} == {field.name for field, _ in flow.ListFields()} & paths
    assert all(getattr(left, name) == getattr(flow, name) for name in paths)


def test_a_mask_of_very_many_paths() -> None:
    with pytest.raises(MaskError, match="invalid fieldmask: 1001 paths are more than 1000"):
        Mask(f"path{number}" for number in range(1001))
