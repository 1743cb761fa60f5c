"""bpf(2) by ctypes: maps, programs and pins by file descriptor. Touches the kernel; knows no map of ours by name.

A dozen commands of one system call, not a library. Every failure is an OSError that names the act. Descriptors are
plain integers that the caller closes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bpf.layout import MapSpec

SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}

# enum bpf_cmd
MAP_CREATE, MAP_LOOKUP_ELEM, MAP_UPDATE_ELEM, MAP_DELETE_ELEM, MAP_GET_NEXT_KEY, PROG_LOAD, OBJ_PIN, OBJ_GET = range(8)
PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD = 13, 15
MAP_LOOKUP_BATCH, MAP_UPDATE_BATCH, MAP_DELETE_BATCH = 24, 26, 27
ENABLE_STATS = 32

ENOTSUPP = 524  # the kernel's own, for a command that a map type does not know

PROG_TYPE_SCHED_CLS = 3
STATS_RUN_TIME = 0
BATCH = 4096  # entries per system call: the kernel allocates the bucket buffer, and a page fault costs nothing
NAME_BYTES = 15  # BPF_OBJ_NAME_LEN less the final zero
LOG_BYTES = 16 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf_into(command: int, attributes: bytearray, act: str) -> bool:
    """As _bpf, for a command that writes its results into the attributes. False when it has come to the end."""
    buffer = ctypes.create_string_buffer(bytes(attributes), len(attributes))
    try:
        _call(command, buffer, act)
        return True
    except FileNotFoundError:
        return False
    finally:
        attributes[:] = buffer.raw


def _bpf(command: int, attributes: bytes, act: str) -> int:
    return _call(command, ctypes.create_string_buffer(attributes, len(attributes)), act)


def _call(command: int, buffer: ctypes.Array[ctypes.c_char], act: str) -> int:
    number = SYSCALL_NUMBER.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"{act}: no bpf system call number is known for {platform.machine()}")
    while True:
        result: int = _libc.syscall(number, command, buffer, len(buffer))
        if result >= 0:
            return result
        code = ctypes.get_errno()
        # a program load answers EAGAIN while a signal is pending
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, f"{act}: {os.strerror(code)}")


def _at(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def _bytes(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, max(len(content), 1))


# --- objects and pins --------------------------------------------------------------------------------------------


def object_get(path: Path) -> int:
    """Descriptor of a pinned object. FileNotFoundError when there is none."""
    name = _bytes(os.fsencode(path) + b"\0")
    return _bpf(OBJ_GET, struct.pack("=QII", _at(name), 0, 0), f"open pinned object {path}")


def object_pin(fd: int, path: Path) -> None:
    """Pin under `path`, replacing atomically whatever is pinned there."""
    beside = path.with_name(f"{path.name}_new")
    beside.unlink(missing_ok=True)
    name = _bytes(os.fsencode(beside) + b"\0")
    _bpf(OBJ_PIN, struct.pack("=QII", _at(name), fd, 0), f"pin {path}")
    beside.rename(path)


def _info(fd: int, size: int, act: str) -> bytes:
    info = ctypes.create_string_buffer(size)
    _bpf(OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, _at(info)), act)
    return info.raw


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """What the kernel says of a program. Times are nanoseconds since load, counted while statistics are on."""

    id: int
    name: str
    run_time_ns: int
    run_count: int


def program_info(fd: int) -> ProgramInfo:
    """struct bpf_prog_info: id at 4, name at 64, run_time_ns at 192, run_cnt at 200."""
    raw = _info(fd, 224, "read program information")
    name = raw[64:80].split(b"\0")[0].decode(errors="replace")
    run_time, run_count = struct.unpack_from("=QQ", raw, 192)
    return ProgramInfo(struct.unpack_from("=I", raw, 4)[0], name, run_time, run_count)


def program_fd_by_id(number: int) -> int:
    return _bpf(PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0), f"open program {number}")


def enable_stats() -> int:
    """Descriptor that keeps run-time statistics of all programs on until it is closed."""
    return _bpf(ENABLE_STATS, struct.pack("=I", STATS_RUN_TIME), "enable program statistics")


# --- programs ----------------------------------------------------------------------------------------------------


class VerifierError(OSError):
    """The kernel refused a program: the message holds the telling line, `log` the whole log."""

    log: str = ""


def program_load(name: str, instructions: bytes, license_name: str) -> int:
    """Load a SCHED_CLS program. VerifierError when the kernel refuses it."""
    try:
        return _program_load(name, instructions, license_name, None)
    except OSError as first:
        if first.errno not in (errno.EACCES, errno.EINVAL, errno.E2BIG, errno.EPERM):
            raise
        log = ctypes.create_string_buffer(LOG_BYTES)
        try:  # again, for the log: writing it for a program that loads would take longer than the load
            return _program_load(name, instructions, license_name, log)
        except OSError as error:
            text = log.value.decode(errors="replace")
            lines = [line for line in text.splitlines() if line and not line.startswith(("processed", "verification"))]
            refused = VerifierError(error.errno, f"{error.strerror}: {lines[-1] if lines else 'no verifier log'}")
            refused.log = text
            raise refused from error


def _program_load(name: str, code: bytes, license_name: str, log: ctypes.Array[ctypes.c_char] | None) -> int:
    instructions, license_text = _bytes(code), _bytes(license_name.encode() + b"\0")
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        PROG_TYPE_SCHED_CLS,
        len(code) // 8,
        _at(instructions),
        _at(license_text),
        1 if log is not None else 0,
        len(log) if log is not None else 0,
        _at(log) if log is not None else 0,
        0,
        0,
        name.encode()[:NAME_BYTES],
        0,
        0,
    )
    return _bpf(PROG_LOAD, attributes, f"load program {name}")


# --- maps --------------------------------------------------------------------------------------------------------


def map_create(spec: MapSpec) -> int:
    attributes = struct.pack(
        "=IIIIIII16s",
        spec.type,
        spec.key_size,
        spec.value_size,
        spec.max_entries,
        spec.flags,
        0,
        0,
        spec.name.encode()[:NAME_BYTES],
    )
    return _bpf(MAP_CREATE, attributes, f"create map {spec.name}")


def map_matches(fd: int, spec: MapSpec) -> bool:
    """struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags."""
    raw = _info(fd, 88, f"read information of map {spec.name}")
    kind, _, key, value, entries, flags = struct.unpack_from("=6I", raw)
    return (kind, key, value, entries, flags) == (
        spec.type,
        spec.key_size,
        spec.value_size,
        spec.max_entries,
        spec.flags,
    )


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """`value_size` is that of the whole value: of a per-CPU map, rounded up to 8 and times the possible CPUs."""
    held, value = _bytes(key), ctypes.create_string_buffer(value_size)
    try:
        _bpf(MAP_LOOKUP_ELEM, struct.pack("=IIQQQ", fd, 0, _at(held), _at(value), 0), "look up a map entry")
    except FileNotFoundError:
        return None
    return value.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    held, content = _bytes(key), _bytes(value)
    _bpf(MAP_UPDATE_ELEM, struct.pack("=IIQQQ", fd, 0, _at(held), _at(content), 0), "write a map entry")


def map_delete(fd: int, key: bytes) -> None:
    """A missing entry is no error: it is what was wanted."""
    held = _bytes(key)
    try:
        _bpf(MAP_DELETE_ELEM, struct.pack("=IIQQQ", fd, 0, _at(held), 0, 0), "delete a map entry")
    except FileNotFoundError:
        return


def _batch(fd: int, command: int, keys: bytes, values: bytes | None, count: int) -> None:
    held, content = _bytes(keys), _bytes(values or b"")
    attributes = struct.pack("=QQQQIIQQ", 0, 0, _at(held), _at(content) if values is not None else 0, count, fd, 0, 0)
    _bpf(command, attributes, "write map entries")


def map_update_all(fd: int, spec: MapSpec, keys: bytes, values: bytes) -> None:
    """Write entries, packed one after the other, in this order; on failure those before the failing one are written."""
    for first in range(0, len(keys) // spec.key_size, BATCH):
        some = keys[first * spec.key_size : (first + BATCH) * spec.key_size]
        their = values[first * spec.value_size : (first + BATCH) * spec.value_size]
        if len(some) == spec.key_size:
            map_update(fd, some, their)
        else:
            _batch(fd, MAP_UPDATE_BATCH, some, their, len(some) // spec.key_size)


def map_delete_all(fd: int, spec: MapSpec, keys: bytes) -> None:
    """Delete packed keys in this order. One by one where an entry is missing, which a batch takes for an error."""
    for first in range(0, len(keys), BATCH * spec.key_size):
        some = keys[first : first + BATCH * spec.key_size]
        try:
            if len(some) > spec.key_size:
                _batch(fd, MAP_DELETE_BATCH, some, None, len(some) // spec.key_size)
                continue
        except FileNotFoundError:
            pass
        for at in range(0, len(some), spec.key_size):
            map_delete(fd, some[at : at + spec.key_size])


def map_contents(fd: int, spec: MapSpec) -> tuple[bytes, bytes]:
    """All keys and all values of a map whose place in a walk is a key (LPM), packed one after the other, in the
    kernel's order. For maps that nobody else writes. Before 5.13 such maps are not read in batches, but one by one."""
    keys, values = bytearray(), bytearray()
    try:
        for some, their in map_batches(fd, spec):
            keys += some
            values += their
    except OSError as error:
        if error.errno not in (errno.EINVAL, ENOTSUPP, errno.EOPNOTSUPP) or keys:
            raise
        pairs = list(map_entries(fd, spec))
        return b"".join(key for key, _ in pairs), b"".join(value for _, value in pairs)
    return bytes(keys), bytes(values)


def map_batches(fd: int, spec: MapSpec, batch: int = BATCH) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a map, packed, some at a time (up to `batch`, more where a bucket of a hash map has more).
    While the kernel reads, other threads run. An entry of a hash map that stays is seen, whatever comes and goes."""
    keys, values = _bytes(bytes(batch * spec.key_size)), _bytes(bytes(batch * spec.value_size))
    last, following = (_bytes(bytes(max(spec.key_size, 4))) for _ in range(2))
    begun, ended = False, False
    while not ended:
        places = _at(last) if begun else 0, _at(following), _at(keys), _at(values)
        attributes = bytearray(struct.pack("=QQQQIIQQ", *places, batch, fd, 0, 0))
        try:
            ended = not _bpf_into(MAP_LOOKUP_BATCH, attributes, f"read map {spec.name}")
        except OSError as error:
            if error.errno != errno.ENOSPC or batch > spec.max_entries:
                raise
            batch *= 2
            keys, values = _bytes(bytes(batch * spec.key_size)), _bytes(bytes(batch * spec.value_size))
            continue
        count = struct.unpack_from("=I", attributes, 32)[0]
        if count:
            yield keys.raw[: count * spec.key_size], values.raw[: count * spec.value_size]
        begun = True
        last, following = following, last


def map_entries(fd: int, spec: MapSpec) -> Iterator[tuple[bytes, bytes]]:
    """Every entry, in the kernel's order. For maps that nobody else writes: it walks from key to key."""
    key: bytes | None = None
    following = ctypes.create_string_buffer(spec.key_size)
    while True:
        held = _bytes(key) if key is not None else None
        try:
            _bpf(
                MAP_GET_NEXT_KEY,
                struct.pack("=IIQQQ", fd, 0, _at(held) if held is not None else 0, _at(following), 0),
                f"walk map {spec.name}",
            )
        except FileNotFoundError:
            return
        key = following.raw
        value = map_lookup(fd, key, spec.value_size)
        if value is not None:
            yield key, value


def possible_cpus() -> int:
    """How many values an entry of a per-CPU map has."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.replace("-", ",").split(",")[-1]) + 1
