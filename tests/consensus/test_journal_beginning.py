"""The log's beginning: cut by whole segments, or set anew by a snapshot; a crash in between leaves a log that opens."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raftfs import fsync
from raftfs.consensus import segments
from raftfs.consensus.journal import Journal
from raftfs.errors import CorruptData
from raftfs.testing.fakes import WatchedKernel

from .test_journal import contents, fill, open_journal, segment

SEGMENT = 1024


def long_journal(path: Path, entries: int = 60) -> Journal:
    journal = open_journal(path, segment_bytes=SEGMENT)
    for _ in range(entries // 5):
        fill(journal, 5)
        journal.flush()
    return journal


def test_a_cut_keeps_whole_segments_and_what_is_not_below(tmp_path: Path) -> None:
    journal = long_journal(tmp_path)
    before = contents(journal)
    count = journal.segment_count
    assert journal.can_cut(keep_segments=2, below=60)
    assert not journal.can_cut(keep_segments=count, below=60)
    assert not journal.can_cut(keep_segments=2, below=1)
    gone = journal.cut(keep_segments=2, below=60)
    assert len(gone) == count - 2
    assert not journal.can_cut(keep_segments=2, below=60)
    journal.unlink(gone)
    kept = contents(journal)
    assert kept == before[-len(kept) :]
    assert journal.segment_count == 2
    fill(journal, 3, term=4)
    journal.flush()
    after = contents(journal)
    journal.close()
    journal = open_journal(tmp_path, segment_bytes=SEGMENT, commit_floor=60)
    assert contents(journal) == after
    assert journal.first_index_of_term(journal.first_index) == journal.first_index
    journal.close()


def test_segments_are_deleted_one_by_one(tmp_path: Path) -> None:
    """A disk need not keep deletions in order: of several that are synced together, a power cut may leave the first
    segment and not the second, and a log with a gap is refused."""
    journal = long_journal(tmp_path)
    gone = journal.cut(keep_segments=2, below=60)
    deleted: list[int] = []
    with fsync.simulated(WatchedKernel(lambda what, path: deleted.append(sum(not one.exists() for one in gone)))):
        journal.unlink(gone)
    assert deleted == list(range(1, len(gone) + 1))
    journal.close()


def test_a_cut_never_takes_what_the_state_does_not_hold(tmp_path: Path) -> None:
    journal = long_journal(tmp_path)
    journal.unlink(journal.cut(keep_segments=1, below=20))
    assert journal.first_index <= 20
    assert journal.data(20).startswith(b"20/1 ")
    journal.close()


def test_a_crash_while_segments_are_deleted_leaves_a_log(tmp_path: Path) -> None:
    journal = long_journal(tmp_path)
    gone = journal.cut(keep_segments=2, below=60)
    kept = contents(journal)
    journal.unlink(gone[:2])  # the crash comes before the others
    journal.close()
    journal = open_journal(tmp_path, segment_bytes=SEGMENT, commit_floor=60)
    assert contents(journal)[-len(kept) :] == kept
    journal.close()


def test_a_state_that_lacks_what_was_cut_is_refused(tmp_path: Path) -> None:
    journal = long_journal(tmp_path)
    journal.unlink(journal.cut(keep_segments=2, below=60))
    first = journal.first_index
    journal.close()
    with pytest.raises(CorruptData, match=f"begins at index {first}, but the state has applied only 3"):
        open_journal(tmp_path, commit_floor=3)


def test_the_oldest_segment_may_begin_with_replaced_entries(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=SEGMENT)
    fill(journal, 40)
    journal.deleteEntriesFrom(35)
    fill(journal, 40, term=2)
    journal.flush()
    for below in range(20, 60, 5):
        copy = tmp_path / f"copy{below}"
        shutil.copytree(tmp_path / "journal", copy / "journal")
        other = open_journal(copy, segment_bytes=SEGMENT)
        other.unlink(other.cut(keep_segments=1, below=below))
        kept = contents(other)
        other.close()
        other = open_journal(copy, segment_bytes=SEGMENT, commit_floor=below)
        assert contents(other) == kept
        other.close()
    journal.close()


def test_a_log_begins_anew_and_keeps_term_and_vote(tmp_path: Path) -> None:
    journal = long_journal(tmp_path)
    journal.setCurrentTerm(9, "b")
    journal.close()
    Journal.begin_at(tmp_path / "journal", 500, 7, b"\x01")
    journal = open_journal(tmp_path, commit_floor=500)
    assert contents(journal) == [(500, 7, b"\x01")]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (9, "b")
    assert len(list((tmp_path / "journal").glob("*.segment"))) == 1
    fill(journal, 3, term=9)
    journal.flush()
    journal.close()
    journal = open_journal(tmp_path, commit_floor=501)
    assert journal.last_index == 503
    journal.close()


def test_a_beginning_that_was_not_finished_changes_nothing(tmp_path: Path) -> None:
    journal = long_journal(tmp_path)
    before = contents(journal)
    last = journal._segment
    journal.close()
    segment(tmp_path, last + 1).with_suffix(".segment.new").write_bytes(segments.encode_header(last + 1, base=True))
    journal = open_journal(tmp_path, segment_bytes=SEGMENT)
    assert contents(journal) == before
    journal.close()
