"""Compile, load and pin: the short-lived process behind `deflector bpf load` (python -m bpf.loader).

What is pinned already is adopted. Same layout and same sources: nothing is done. Same layout, other sources: new
programs on the old maps, so connections and policy live on. Another layout: new maps, empty, and new programs; what is
attached keeps the old pair until the agent has filled the new maps and attaches again.
Pins are replaced by rename, and `meta` is written last: a death in between leads to a reload, never to a mixture.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import struct
import sys as python
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bpf import compile as compiler
from bpf import sys
from bpf.host import Record
from bpf.layout import LAYOUT_VERSION, MAPS, META_BYTES, PROGRAMS, meta_value

FOLDER = "deflector"  # below the bpffs
# Our programs call no helper that asks for a GPL-compatible license, so they bear the project's own.
LICENSE_NAME = "Apache-2.0"
BPF_FS_MAGIC = 0xCAFE4A11
PRELOADED = frozenset({"maps.debug", "progs.debug"})  # what a kernel with CONFIG_BPF_PRELOAD puts into each bpffs
LD_IMM64, PSEUDO_MAP_FD = 0x18, 1

_libc = ctypes.CDLL(None, use_errno=True)


class LoadError(Exception):
    """The data path cannot be loaded; the message is one line that says what and what to do."""


@dataclass(frozen=True, slots=True)
class Options:
    """Where everything is. Two nodes on one machine (tests) differ in each of them but the cache."""

    bpffs: Path = Path("/sys/fs/bpf")
    run_dir: Path = Path("/run/deflector")
    cache_dir: Path = Path("/var/cache/deflector")
    device: str = "deflector0"

    @property
    def pins(self) -> Path:
        return self.bpffs / FOLDER

    @property
    def record(self) -> Path:
        return self.run_dir / "host.json"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What load() did: `programs` is adopted, cached or compiled; `maps` how many were made anew."""

    programs: str
    maps: int
    digest: str


# --- bpffs -------------------------------------------------------------------------------------------------------


def is_bpffs(path: Path) -> bool:
    buffer = ctypes.create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    kind: int = struct.unpack_from("@l", buffer.raw)[0]
    return kind & 0xFFFFFFFF == BPF_FS_MAGIC


def mount_bpffs(options: Options) -> None:
    """Mount a bpffs at options.bpffs unless there is one; recorded, so that cleanup unmounts what we mounted."""
    if is_bpffs(options.bpffs):
        return
    try:
        options.bpffs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoadError(f"cannot make {options.bpffs}: {error.strerror} (choose another place with --bpffs)") from error
    if _libc.mount(b"bpf", os.fsencode(options.bpffs), b"bpf", 0, None) != 0:
        text = os.strerror(ctypes.get_errno())
        raise LoadError(f"cannot mount bpffs at {options.bpffs}: {text} (is this root, with CONFIG_BPF_SYSCALL?)")
    record = Record.read(options.record)
    record.mounted = str(options.bpffs)
    record.save()


def unmount_bpffs(options: Options) -> None:
    """Unmount what mount_bpffs mounted, if nobody has put anything there."""
    record = Record.read(options.record)
    if record.mounted != str(options.bpffs):
        return
    empty = is_bpffs(options.bpffs) and {path.name for path in options.bpffs.iterdir()} <= PRELOADED
    if empty and _libc.umount2(os.fsencode(options.bpffs), 0) != 0:
        raise LoadError(f"cannot unmount {options.bpffs}: {os.strerror(ctypes.get_errno())}")
    record.mounted = ""
    record.save()


# --- what is pinned ----------------------------------------------------------------------------------------------


def pinned_meta(options: Options) -> tuple[int, bytes] | None:
    """(layout version, digest of the programs) of what is pinned; None if nothing (whole) is."""
    try:
        fd = sys.object_get(options.pins / "meta")
    except OSError:
        return None
    try:
        raw = sys.map_lookup(fd, struct.pack("=I", 0), META_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)
    if raw is None:
        return None
    version, digest = struct.unpack("=I4x32s", raw)
    return version, digest


def is_current(options: Options) -> bool:
    """Whether the pinned programs and maps are those of the sources beside this file. Cheap, and without bcc."""
    if pinned_meta(options) != (LAYOUT_VERSION, compiler.digest()):
        return False
    pins = {path.name for path in options.pins.iterdir()}
    return pins.issuperset(PROGRAMS) and pins.issuperset(spec.name for spec in MAPS) and not _missing(options)


def _missing(options: Options) -> list[str]:
    """Names of maps whose pin is absent or of another shape."""
    out = []
    for spec in MAPS:
        try:
            fd = sys.object_get(options.pins / spec.name)
        except OSError:
            out.append(spec.name)
            continue
        if not sys.map_matches(fd, spec):
            out.append(spec.name)
        os.close(fd)
    return out


# --- instructions ------------------------------------------------------------------------------------------------


def _cache_file(options: Options, digest: bytes) -> Path:
    return options.cache_dir / f"programs-{platform.machine()}-{digest.hex()[:24]}.json"


def cached(options: Options, digest: bytes) -> dict[str, bytes] | None:
    try:
        content = json.loads(_cache_file(options, digest).read_text())
        found = {name: base64.b64decode(content[name], validate=True) for name in PROGRAMS}
    except (OSError, ValueError, KeyError, TypeError, binascii.Error):
        return None
    return found if all(code and len(code) % 8 == 0 for code in found.values()) else None


def _keep(options: Options, digest: bytes, programs: Mapping[str, bytes]) -> None:
    """A cache that cannot be written only costs time."""
    try:
        _write(_cache_file(options, digest), programs)
    except OSError:
        return


def _write(path: Path, programs: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(json.dumps({name: base64.b64encode(code).decode() for name, code in programs.items()}))
    beside.replace(path)


def precompile(cache_dir: Path) -> Path:
    """Compile into the cache and load nothing, so that whoever gets the file needs neither compiler nor headers.

    Needs no privilege. The programs are the same on every kernel of this machine's kind. LoadError when it cannot be.
    """
    path = _cache_file(Options(cache_dir=cache_dir), compiler.digest())
    try:
        _write(path, compiler.build())
    except compiler.CompileError as error:
        raise LoadError(str(error)) from error
    except OSError as error:
        raise LoadError(f"cannot write {path}: {error.strerror}") from error
    return path


def link(code: bytes, fds: list[int]) -> bytes:
    """Put the descriptor of each map where the instructions name it by number."""
    out = bytearray(code)
    at = 0
    while at < len(out):
        if out[at] == LD_IMM64:
            if out[at + 1] >> 4 == PSEUDO_MAP_FD:
                number: int = struct.unpack_from("=i", out, at + 4)[0]
                struct.pack_into("=i", out, at + 4, fds[number])
            at += 8  # a 64-bit load takes two slots
        at += 8
    return bytes(out)


# --- load --------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(options: Options) -> Iterator[None]:
    """Two loaders at once would pin each other's halves."""
    options.run_dir.mkdir(parents=True, exist_ok=True)
    with open(options.run_dir / "bpf.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def load(options: Options) -> Loaded:
    """Make the pins current. LoadError or compile.CompileError when it cannot be; then the pins are as before."""
    _lift_memlock()
    with _alone(options):
        mount_bpffs(options)
        options.pins.mkdir(mode=0o700, exist_ok=True)
        digest = compiler.digest()
        if is_current(options):
            return Loaded("adopted", 0, digest.hex())
        programs = cached(options, digest)
        source = "cached"
        if programs is None:
            source = "compiled"
            programs = dict(compiler.build())
            _keep(options, digest, programs)
        return Loaded(source, _replace(options, programs, digest), digest.hex())


def _lift_memlock() -> None:
    """Before 5.11 the kernel counts maps against this limit, and its default of 64 KiB holds none of ours. Without
    CAP_SYS_RESOURCE it stays as it is: a kernel that minds will say so when the first map is made."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        return


def _replace(options: Options, programs: Mapping[str, bytes], digest: bytes) -> int:
    meta = pinned_meta(options)
    adopt = meta is not None and meta[0] == LAYOUT_VERSION
    anew = set(_missing(options)) if adopt else {spec.name for spec in MAPS}
    fds: list[int] = []
    loaded: dict[str, int] = {}
    try:
        for spec in MAPS:
            fds.append(sys.map_create(spec) if spec.name in anew else sys.object_get(options.pins / spec.name))
        for name, code in programs.items():
            loaded[name] = sys.program_load(name, link(code, fds), LICENSE_NAME)
        _pin(options, dict(zip((spec.name for spec in MAPS), fds, strict=True)), loaded, anew)
        sys.map_update(fds[-1], struct.pack("=I", 0), meta_value(digest))
    except OSError as error:
        raise LoadError(_explain(error)) from error
    finally:
        for fd in (*fds, *loaded.values()):
            os.close(fd)
    return len(anew)


def _pin(options: Options, maps: Mapping[str, int], programs: Mapping[str, int], anew: set[str]) -> None:
    sys.map_update(maps["meta"], struct.pack("=I", 0), meta_value(bytes(32)))  # neither the old nor the new, until done
    for name, fd in maps.items():
        if name in anew:
            sys.object_pin(fd, options.pins / name)
    for name, fd in programs.items():
        sys.object_pin(fd, options.pins / name)


def _explain(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"{error.strerror}: root with CAP_BPF and CAP_NET_ADMIN is needed"
    return str(error.strerror)


def unpin(options: Options) -> None:
    """Remove our pins and their folder."""
    if not options.pins.is_dir() or not is_bpffs(options.bpffs):
        return
    for path in options.pins.iterdir():
        path.unlink()
    options.pins.rmdir()


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 with one line on stderr. Prints what was done as one line of JSON."""
    parser = argparse.ArgumentParser(prog="deflector bpf load", description="Compile, load and pin the BPF programs.")
    defaults = Options()
    parser.add_argument("--bpffs", type=Path, default=defaults.bpffs)
    parser.add_argument("--run-dir", type=Path, default=defaults.run_dir)
    parser.add_argument("--cache-dir", type=Path, default=defaults.cache_dir)
    given = parser.parse_args(arguments)
    try:
        loaded = load(Options(given.bpffs, given.run_dir, given.cache_dir))
    except (LoadError, compiler.CompileError, OSError) as error:
        print(f"bpf load: {error}", file=python.stderr)
        return 2
    print(json.dumps(asdict(loaded), sort_keys=True))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
