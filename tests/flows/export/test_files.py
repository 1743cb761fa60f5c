"""Files that are rotated, and disks that are full."""

from __future__ import annotations

import gzip
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.export.config import FileSpec
from flows.export.files import RotatingFile

MOMENT = datetime(2026, 1, 14, 10, 11, 12, 345678, UTC)


def test_a_file_is_rotated_before_it_grows_beyond_its_size(tmp_path: Path) -> None:
    file = RotatingFile(FileSpec(str(tmp_path / "new" / "events.log"), max_bytes=10), lambda: MOMENT)
    for line in (b"first\n", b"2nd\n", b"third\n"):
        file.write([line])
    file.close()
    folder = tmp_path / "new"
    assert (folder / "events.log").read_bytes() == b"third\n"
    assert (folder / "events-2026-01-14T10-11-12.345.log").read_bytes() == b"first\n2nd\n"
    assert (folder / "events.log").stat().st_mode & 0o777 == 0o640


def test_only_so_many_old_files_are_kept_and_they_are_compressed(tmp_path: Path) -> None:
    times = (MOMENT + timedelta(seconds=s) for s in range(100))
    spec = FileSpec(str(tmp_path / "events.log"), max_bytes=1, backups=2, compress=True)
    (tmp_path / "events-of-others.log").write_text("stays")
    file = RotatingFile(spec, lambda: next(times))
    for number in range(5):
        file.write([b"%d\n" % number])
    file.close()
    rotated = sorted(path.name for path in tmp_path.glob("*.gz"))
    assert rotated == ["events-2026-01-14T10-11-14.345.log.gz", "events-2026-01-14T10-11-15.345.log.gz"]
    assert gzip.decompress((tmp_path / rotated[-1]).read_bytes()) == b"3\n"
    assert (tmp_path / "events-of-others.log").exists()


def test_two_rotations_in_one_moment_do_not_overwrite_each_other(tmp_path: Path) -> None:
    file = RotatingFile(FileSpec(str(tmp_path / "e.log"), max_bytes=1), lambda: MOMENT)
    for line in (b"a", b"b", b"c"):
        file.write([line])
    file.close()
    assert sorted(p.read_bytes() for p in tmp_path.iterdir()) == [b"a", b"b", b"c"]


def test_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    spec = FileSpec(str(tmp_path / "e.log"), max_bytes=8)
    for line in (b"12345\n", b"6789\n"):
        file = RotatingFile(spec, lambda: MOMENT)
        file.write([line])
        file.close()
    assert (tmp_path / "e.log").read_bytes() == b"6789\n"


@pytest.mark.privileged
def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], check=True)
    try:
        file = RotatingFile(FileSpec(str(small / "e.log"), max_bytes=0), lambda: MOMENT)
        file.write([b"whole\n"])
        with pytest.raises(OSError, match="No space"):
            file.write([b"x" * 100_000])
        file.close()
        assert (small / "e.log").read_bytes() == b"whole\n"
    finally:
        subprocess.run(["umount", small], check=True)
