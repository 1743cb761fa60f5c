"""Instructions from sources, from the cache, and what is said when there are none."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import compile as compiler
from bpf import loader
from bpf import sys as bpfsys
from bpf.features import State, checks, reuseport_assignable
from bpf.layout import MAPS, PROGRAMS
from bpf.loader import Options

ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tmp_path: Path) -> Iterator[Options]:
    made = Options(tmp_path / "bpffs", tmp_path / "run", tmp_path / "cache")
    yield made
    loader.unpin(made)
    loader.unmount_bpffs(made)


def instruction(code: int, registers: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, registers, 0, value)


def test_maps_are_linked_by_number_and_constants_are_not() -> None:
    by_map = instruction(0x18, 0x11, 2) + instruction(0, 0, 0)
    constant = instruction(0x18, 0x01, 2) + instruction(0, 0, 0x18)
    assert loader.link(by_map + constant, [7, 8, 9]) == instruction(0x18, 0x11, 9) + instruction(0) + constant


def test_what_is_compiled_beforehand_needs_no_compiler_later(tmp_path: Path) -> None:
    made = loader.precompile(tmp_path / "cache")
    found = loader.cached(Options(cache_dir=made.parent), compiler.digest())
    assert found is not None
    assert set(found) == set(PROGRAMS)


def write_headers(folder: Path, *parts: str) -> Path:
    for part in parts:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).touch()
    return folder


def test_debians_split_headers_are_found_newest_first(tmp_path: Path) -> None:
    for version in ("6.1.0-9", "6.1.0-50"):
        write_headers(tmp_path / f"linux-headers-{version}-amd64", "include/generated/autoconf.h")
        write_headers(tmp_path / f"linux-headers-{version}-common", "include/linux/kconfig.h")
    found = compiler.find_headers(tmp_path)
    assert [p.name for p in found] == ["linux-headers-6.1.0-50-amd64", "linux-headers-6.1.0-50-common"]


def test_whole_headers_need_no_second_folder(tmp_path: Path) -> None:
    whole = tmp_path / "linux-headers-6.8.0-1-generic"
    write_headers(whole, "include/generated/autoconf.h", "include/linux/kconfig.h")
    assert compiler.find_headers(tmp_path) == [whole]


def test_without_headers_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert compiler.find_headers(tmp_path) == []


def load(options: Options) -> subprocess.CompletedProcess[str]:
    words = [f"--bpffs={options.bpffs}", f"--run-dir={options.run_dir}", f"--cache-dir={options.cache_dir}"]
    command = [sys.executable, "-m", "bpf.loader", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


@pytest.mark.privileged
def test_compiled_then_adopted_then_cached(options: Options) -> None:
    first = json.loads(load(options).stdout)
    assert (first["programs"], first["maps"]) == ("compiled", len(MAPS))
    assert {path.name for path in options.pins.iterdir()} == {*PROGRAMS, *(spec.name for spec in MAPS)}
    assert json.loads(load(options).stdout)["programs"] == "adopted"
    loader.unpin(options)
    assert json.loads(load(options).stdout)["programs"] == "cached"


@pytest.mark.privileged
@pytest.mark.parametrize("content", ["", "{}", '{"from_pod": "?"}', '{"from_pod": 1, "to_pod": "", "to_proxy": ""}'])
def test_a_broken_cache_is_made_again(options: Options, cache: Path, content: str) -> None:
    options.cache_dir.mkdir()
    digest = compiler.digest()
    path = options.cache_dir / f"programs-x86_64-{digest.hex()[:24]}.json"
    path.write_text(content)
    assert loader.cached(options, digest) is None


@pytest.mark.privileged
def test_a_program_that_the_kernel_refuses_is_told_in_one_line() -> None:
    with pytest.raises(bpfsys.VerifierError, match=r"load program bad: .*: R0 !read_ok") as refused:
        bpfsys.program_load("bad", instruction(0x95), "Apache-2.0")
    assert "\n" not in str(refused.value)
    assert "R0 !read_ok" in refused.value.log


@pytest.mark.privileged
def test_a_place_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = load(Options(tmp_path / "file" / "bpffs", tmp_path / "run", tmp_path / "cache"))
    assert done.returncode == 2
    assert done.stderr.startswith("bpf load: cannot make ")
    assert done.stderr.count("\n") == 1


@pytest.mark.privileged
def test_a_source_that_does_not_compile_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in compiler.sources().items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "ct.h").write_text("int broken(void) { return nothing; }\n")
    code = (
        "import sys; from pathlib import Path; from bpf import compile as c; c.SOURCE_DIR = Path(sys.argv[1])\n"
        "try: c.build()\nexcept c.CompileError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert "ct.h:1:" in done.stdout
    assert "undeclared identifier 'nothing'" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.privileged
def test_this_machine_has_what_is_needed(options: Options) -> None:
    found = checks(options)
    assert [c for c in found if c.state is not State.OK] == []
    assert {"root", "kernel", "bpffs", "ring buffer", "socket assignment", "clsact", "nftables", "bcc"} <= {
        c.name for c in found
    }
    assert reuseport_assignable() in (True, False)


@pytest.mark.privileged
def test_without_root_nothing_is_claimed() -> None:
    code = "from bpf.features import checks\nfor c in checks(): print(c.name, c.state, bool(c.remedy), sep='|')"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    rows = {line.split("|")[0]: line.split("|")[1:] for line in done.stdout.splitlines()}
    assert rows["root"] == ["missing", "True"]
    for name in ("ring buffer", "clsact", "nftables", "transparent sockets", "socket assignment"):
        assert rows[name] == ["unknown", "True"], name
