"""The state file: whole or not at all, and never in the way of a start."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.node.state import NodeState, load, save


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = NodeState({"k8s:a=b": 256}, {"slots": {"x": [1]}}, {"by_slot": {"x": 14000}})
    save(tmp_path / "state.json", state)
    assert load(tmp_path / "state.json") == (state, None)
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_no_file_is_no_state_and_no_complaint(tmp_path: Path) -> None:
    assert load(tmp_path / "state.json") == (None, None)


@given(st.one_of(st.binary(max_size=60), st.just(b'{"version": 9}'), st.just(b'{"version": 1, "slots": 3}')))
def test_a_damaged_file_is_no_state_with_a_reason(tmp_path_factory: object, content: bytes) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"  # type: ignore[attr-defined]
    path.write_bytes(content)
    state, warning = load(path)
    assert state is None
    assert warning is not None
    assert "starting afresh" in warning
