"""The code of our own protos is what `make protos` makes of them."""

from __future__ import annotations

from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent.parent.parent
PROTOS = "xds/protos/deflector/l7/v1"


def test_the_committed_code_is_current(tmp_path: Path) -> None:
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PROTOS).glob("*.proto"))
    assert protoc.main(["", f"-I{ROOT}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", *sources]) == 0
    made = {path.name: path.read_text() for path in (tmp_path / PROTOS).iterdir()}
    assert made == {path.name: path.read_text() for path in (ROOT / PROTOS).glob("*_pb2.py*")}
