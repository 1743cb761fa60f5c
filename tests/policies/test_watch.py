"""Watching a folder: editors, ConfigMaps, half-written files, and folders that come and go."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from policies.watch import LOSS_GRACE_MS, REPLACED, FileEvent, watch_folder

QUIET_MS = 10


class Watching:
    """A watched folder; `until` reads events until the folder, as told, is as wanted."""

    def __init__(self, folder: Path, batches: AsyncIterator[tuple[FileEvent, ...]]) -> None:
        self.folder = folder
        self.told: dict[str, str] = {}
        self.history: list[str] = []
        self._batches = batches

    async def until(self, **wanted: str) -> None:
        """Names are without the suffix .yaml; the folder itself is `folder`."""
        async with asyncio.timeout(10):
            while self.told != wanted:
                self._take(await anext(self._batches))

    def _take(self, batch: tuple[FileEvent, ...]) -> None:
        for event in batch:
            name = "folder" if event.path == str(self.folder) else Path(event.path).stem
            if event.text is None and not event.error:
                self.history.append(f"-{name}")
                del self.told[name]
            else:
                self.told[name] = event.error or event.text or ""
                self.history.append(f"{name}={self.told[name]}")

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.yaml").write_text(text)


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Watching]:
    batches = watch_folder(folder, QUIET_MS)
    try:
        yield Watching(folder, batches)
    finally:
        await batches.aclose()  # type: ignore[attr-defined]


async def test_first_everything_that_is_there(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", ".hidden.yaml", "readme.md"):
        (tmp_path / name).write_text(name)
    (tmp_path / "sub").mkdir()
    batches = watch_folder(tmp_path, QUIET_MS)
    first = await anext(batches)
    assert [Path(event.path).name for event in first] == ["a.yml", "b.yaml", "c.json"]
    await batches.aclose()  # type: ignore[attr-defined]


async def test_files_come_change_and_go(tmp_path: Path) -> None:
    async with watching(tmp_path) as w:
        assert await anext(w._batches) == ()
        w.write("a", "1")
        await w.until(a="1")
        w.write("a", "2")
        await w.until(a="2")
        w.write("b", "1")
        (tmp_path / "a.yaml").unlink()
        await w.until(b="1")


async def test_an_editor_that_renames_never_shows_a_gap(tmp_path: Path) -> None:
    w_path = tmp_path / "a.yaml"
    w_path.write_text("1")
    async with watching(tmp_path) as w:
        await w.until(a="1")
        w_path.rename(tmp_path / "a.yaml~")  # as vim does: away, then anew
        w.write("a", "2")
        await w.until(a="2")
        aside = tmp_path / ".a.yaml.new"
        aside.write_text("3")
        aside.rename(w_path)
        await w.until(a="3")
        assert w.history == ["a=1", "a=2", "a=3"]


async def test_a_file_that_is_empty_for_a_moment_loses_nothing(tmp_path: Path) -> None:
    async with watching(tmp_path) as w:
        w.write("a", "1")
        await w.until(a="1")
        with (tmp_path / "a.yaml").open("w") as slow:
            slow.flush()
            w.write("b", "seen")  # the empty file has been looked at when this one is told
            await w.until(a="1", b="seen")
            slow.write("2")
        await w.until(a="2", b="seen")
        assert "a=" not in w.history


async def test_a_file_that_stays_empty_is_told(tmp_path: Path) -> None:
    async with watching(tmp_path) as w:
        w.write("a", "1")
        await w.until(a="1")
        w.write("a", "")
        await w.until(a="")


async def test_a_half_written_file_is_told_again_when_it_is_whole(tmp_path: Path) -> None:
    async with watching(tmp_path) as w:
        await anext(w._batches)
        with (tmp_path / "a.yaml").open("w") as slow:
            slow.write("half")
            slow.flush()
            await w.until(a="half")
            slow.write(" whole")
        await w.until(a="half whole")


async def test_a_configmap_is_swapped_at_once(tmp_path: Path) -> None:
    def version(number: int, **files: str) -> None:
        data = tmp_path / f"..v{number}"
        data.mkdir()
        for name, text in files.items():
            (data / f"{name}.yaml").write_text(text)
        link = tmp_path / "..data_tmp"
        link.symlink_to(data.name)
        link.rename(tmp_path / "..data")

    version(1, a="1", b="1")
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    async with watching(tmp_path) as w:
        await w.until(a="1", b="1")
        version(2, a="2", b="2")
        shutil.rmtree(tmp_path / "..v1")
        await w.until(a="2", b="2")


async def test_a_link_out_of_the_folder_is_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "out.yaml"
    folder.mkdir()
    outside.write_text("1")
    (folder / "a.yaml").symlink_to(outside)
    async with watching(folder) as w:
        await w.until(a="1")
        outside.write_text("2")
        await w.until(a="2")


async def test_what_cannot_be_read_is_an_error_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.yaml")
    async with watching(tmp_path) as w:
        await w.until(
            bytes="is not UTF-8: byte 3",
            folder="is not a regular file",
            dangling="no such file or directory",
            pipe="is not a regular file",
        )
        (tmp_path / "pipe.yaml").unlink()
        (tmp_path / "pipe.yaml").write_text("1")
        await w.until(
            bytes="is not UTF-8: byte 3",
            folder="is not a regular file",
            dangling="no such file or directory",
            pipe="1",
        )


async def test_a_folder_that_vanishes_takes_nothing_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    async with watching(folder) as w:
        w.write("a", "1")
        await w.until(a="1")
        folder.rename(tmp_path / "elsewhere")
        gone = "the folder of manifests: no such file or directory"
        await w.until(a="1", folder=gone)
        folder.mkdir()
        w.write("a", "2")
        await w.until(a="2")
        w.write("a", "3")  # the new folder is watched as the old one was
        await w.until(a="3")
        assert "-a" not in w.history


async def test_an_empty_folder_in_its_place_takes_nothing_with_it(tmp_path: Path) -> None:
    """As when a mount is gone: what is below it shows. It counts again once something is in it."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "a.yaml").write_text("a")
    (folder / "b.yaml").write_text("b")
    async with watching(folder) as seen:
        await seen.until(a="a", b="b")
        folder.rename(tmp_path / "unmounted")
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty").rename(folder)
        await seen.until(a="a", b="b", folder=f"the folder of manifests {REPLACED}")
        (folder / "a.yaml").write_text("A")
        await seen.until(a="A")


async def test_a_mount_that_comes_back_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "a.yaml").write_text("a")
    async with watching(folder) as seen:
        await seen.until(a="a")
        folder.rename(tmp_path / "unmounted")
        folder.mkdir()
        await seen.until(a="a", folder=f"the folder of manifests {REPLACED}")
        folder.rmdir()
        (tmp_path / "unmounted").rename(folder)
        await seen.until(a="a")
        assert "-a" not in seen.history


async def test_files_that_are_deleted_one_by_one_are_gone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(name)
    async with watching(tmp_path) as seen:
        await seen.until(a="a", b="b")
        (tmp_path / "a.yaml").unlink()
        (tmp_path / "b.yaml").unlink()
        await seen.until()


async def test_a_folder_may_come_later(tmp_path: Path) -> None:
    async with watching(tmp_path / "later") as w:
        await w.until(folder="the folder of manifests: no such file or directory")
        (tmp_path / "later").mkdir()
        w.write("a", "1")
        await w.until(a="1")


async def test_an_edit_is_told_long_before_a_person_notices(tmp_path: Path) -> None:
    async with watching(tmp_path) as w:
        w.write("a", "0")
        await w.until(a="0")
        waits = []
        for i in range(1, 8):
            w.write("a", str(i))
            start = time.monotonic()
            await w.until(a=str(i))
            waits.append(time.monotonic() - start)
        # 20 ms on a quiet machine; far from the notifier's default of 1.6 s and from the grace of losses on any.
        assert sorted(waits)[len(waits) // 2] < LOSS_GRACE_MS / 1000


async def test_a_folder_that_is_empty_at_the_start_though_an_earlier_agent_read_files_from_it(tmp_path: Path) -> None:
    """A restart without the mount is no order to drop every policy."""
    batches = watch_folder(tmp_path, QUIET_MS, had_files=True)
    (first,) = await anext(batches)
    assert first.error == f"the folder of manifests {REPLACED}"
    (tmp_path / "a.yaml").write_text("a")
    async with asyncio.timeout(5):
        events = await anext(batches)
    assert FileEvent(str(tmp_path), None) in events
    assert FileEvent(str(tmp_path / "a.yaml"), "a") in events
    await batches.aclose()  # type: ignore[attr-defined]
