"""The journal of learned names: what was written whole is read, and nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.names import journal, journal_file
from agent.names.book import Holding
from agent.names.journal_file import JournalFile

A1, A2 = bytes((192, 0, 2, 1)), bytes(range(16))
HELD = st.builds(
    Holding,
    st.integers(1, 9),
    st.sampled_from(["a.org.", "b\\032c.org.", "."]),
    st.sampled_from([A1, A2]),
    st.floats(0, 2e9),
    st.floats(0, 2e9),
)


def as_dict(held: list[Holding]) -> dict[tuple[int, str, bytes], Holding]:
    return {(h.endpoint, h.name, h.address): h for h in held}


@given(st.lists(HELD, max_size=8, unique_by=lambda h: h[:3]), st.lists(HELD, max_size=3))
def test_what_is_written_is_read(held: list[Holding], gone: list[Holding]) -> None:
    content = journal.kept(held) + journal.dropped(gone)
    found = journal.replay(content)
    away = as_dict(gone)
    assert found.holdings == {key: one for key, one in as_dict(held).items() if key not in away}
    assert (found.valid, found.lost) == (len(content), 0)


def test_the_addresses_of_a_name_share_a_line() -> None:
    many = [Holding(1, "s3.amazonaws.com.", bytes((10, 0, 0, n)), 5.0) for n in range(200)]
    assert journal.kept(many).count(b"\n") == 1


@given(st.data())
def test_a_torn_write_loses_its_line_and_what_follows(data: st.DataObject) -> None:
    lines = [journal.kept([Holding(n, "a.org.", A1, 5.0)]) for n in range(4)]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    found = journal.replay(content[:cut])
    assert len(found.holdings) == sum(len(b"".join(lines[: n + 1])) <= cut for n in range(4))
    assert found.valid + found.lost == cut


@given(st.data())
def test_a_flipped_byte_opens_nothing(data: st.DataObject) -> None:
    first, second = (journal.kept([Holding(n, "a.org.", A1, 5.0)]) for n in (1, 2))
    damaged = bytearray(first + second)
    damaged[data.draw(st.integers(len(first), len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    assert set(journal.replay(bytes(damaged)).holdings) <= {(1, "a.org.", A1)}


@given(st.binary(max_size=80))
def test_whatever_is_in_the_file(content: bytes) -> None:
    assert journal.replay(content).holdings == {}


@pytest.mark.parametrize(
    "entry",
    [
        ["+", 1, "a.", ["zz"], 1, 2],
        ["+", 1, "a.", ["c0"], 1, 2],
        ["+", "1", "a.", [], 1, 2],
        ["+", 1, "a" * 5000, [], 1, 2],
        ["-", 1, "a.", [], 1],
        ["?", 1, "a.", []],
        7,
    ],
)
def test_a_line_of_good_sum_and_bad_sense_is_not_believed(entry: list[object]) -> None:
    line = journal._line(entry)
    assert journal.replay(line).lost == len(line)


class TestFile:
    def test_names_survive_the_process(self, tmp_path: Path) -> None:
        one = JournalFile(tmp_path / "names")
        assert one.open().holdings == {}
        one.keep([Holding(1, "a.org.", A1, 5.0), Holding(1, "a.org.", A2, 5.0)])
        one.drop([Holding(1, "a.org.", A2, 5.0)])
        one.close()
        found = JournalFile(tmp_path / "names").open()
        assert list(found.holdings) == [(1, "a.org.", A1)]

    def test_after_a_torn_write_the_next_one_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "names"
        one = JournalFile(path)
        one.open()
        one.keep([Holding(1, "a.org.", A1, 5.0)])
        one.close()
        with path.open("ab") as torn:
            torn.write(journal.kept([Holding(2, "b.org.", A1, 5.0)])[:-3])
        again = JournalFile(path)
        assert again.open().lost > 0
        again.keep([Holding(3, "c.org.", A1, 5.0)])
        again.close()
        assert [key[0] for key in JournalFile(path).open().holdings] == [1, 3]

    def test_a_full_disk_leaves_no_half_line_and_is_made_good_when_there_is_room(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, room, write = tmp_path / "names", [60], os.write
        one = JournalFile(path)
        one.open()

        def scarce(fd: int, content: memoryview) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken = write(fd, content[: room[0]])
            room[0] -= taken
            return taken

        held = [Holding(number, "a.org.", A1, 5.0) for number in range(4)]
        with monkeypatch.context() as full:
            full.setattr(os, "write", scarce)
            one.keep(held[:1])
            with pytest.raises(OSError, match="No space left"):
                one.keep(held[1:2])
        assert "No space left" in one.trouble
        assert one.is_due
        one.keep(held[2:3])
        assert {key[0] for key in journal.replay(path.read_bytes()).holdings} == {0, 2}
        one.snapshot(held)
        assert not one.trouble
        assert not one.is_due
        one.close()
        assert len(JournalFile(path).open().holdings) == 4

    def test_a_snapshot_takes_the_place_of_what_was_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal_file, "COMPACT_AT", 2000)
        path = tmp_path / "names"
        one = JournalFile(path)
        one.open()
        held = Holding(1, "a.org.", A1, 5.0)
        while not one.is_due:
            one.keep([held])
        one.snapshot([held])
        assert not one.is_due
        assert path.read_bytes() == journal.kept([held])
        one.keep([Holding(2, "b.org.", A1, 5.0)])
        one.close()
        assert len(JournalFile(path).open().holdings) == 2
