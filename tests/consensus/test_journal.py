"""The journal: what is durable survives, an unfinished write is cut, damage is refused, never accepted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftfs import fsync
from raftfs.consensus import segments
from raftfs.consensus.journal import Journal
from raftfs.errors import CorruptData
from raftfs.testing.fakes import WatchedKernel


def open_journal(path: Path, **options: int) -> Journal:
    return Journal(path / "journal", **options)


def fill(journal: Journal, count: int, *, term: int = 1, size: int = 100) -> None:
    for index in range(journal.last_index + 1, journal.last_index + 1 + count):
        journal.add(f"{index}/{term} ".encode().ljust(size, b"."), index, term)


def contents(journal: Journal) -> list[tuple[int, int, bytes]]:
    return [
        (index, journal.term(index), journal.data(index))
        for index in range(journal.first_index, journal.last_index + 1)
    ]


def segment(path: Path, number: int = 1) -> Path:
    return segments.segment_path(path / "journal", number)


def test_entries_come_back_after_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 5)
    fill(journal, 5, term=3)
    journal.flush()
    before = contents(journal)
    journal.close()
    journal = open_journal(tmp_path)
    assert contents(journal) == before
    assert (journal.last_index, journal.last_term, journal.durable_index) == (10, 3, 10)
    assert journal.first_index_of_term(9) == 6
    journal.close()


def test_nothing_counts_as_durable_before_complete(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 3)
    assert journal.durable_index == 0
    flush = journal.take()
    assert flush is not None
    assert journal.take() is None, "one write at a time"
    fill(journal, 2)
    journal.write(flush)
    assert journal.durable_index == 0
    journal.complete(flush)
    assert journal.durable_index == 3, "what came during the write waits for the next one"
    journal.flush()
    assert journal.durable_index == 5
    journal.close()


def test_a_removed_suffix_does_not_count_when_its_write_ends(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 10)
    flush = journal.take()
    assert flush is not None
    journal.deleteEntriesFrom(4)  # position 4 is index 5
    fill(journal, 2, term=2)
    journal.write(flush)
    journal.complete(flush)
    assert journal.durable_index == 4, "entries 5 and 6 of term 2 are not on the disk yet"
    journal.flush()
    assert journal.durable_index == 6
    before = contents(journal)
    journal.close()
    journal = open_journal(tmp_path)
    assert contents(journal) == before
    assert [term for _, term, _ in before] == [1, 1, 1, 1, 2, 2]
    journal.close()


def test_old_entries_are_read_from_disk_and_memory_is_bounded(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=64 * 1024, tail_bytes_max=32 * 1024)
    for _ in range(20):
        fill(journal, 50, size=1000)
        journal.flush()
    assert journal._tail_bytes <= 32 * 1024 + 1000
    assert len(list((tmp_path / "journal").glob("*.segment"))) > 5
    assert journal.data(1).startswith(b"1/1 ")
    assert journal.data(1000).startswith(b"1000/1 ")
    assert bytes(journal[500:][0][0]).startswith(b"501/1 ")
    assert len(journal[500:]) == 500
    journal.close()


@pytest.mark.parametrize("cut", [1, 10, segments.RECORD_HEADER_BYTES, segments.RECORD_HEADER_BYTES + 50])
def test_a_torn_tail_is_cut(tmp_path: Path, cut: int) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 9)
    journal.flush()
    before = contents(journal)
    fill(journal, 1)
    journal.flush()
    journal.close()
    size = segment(tmp_path).stat().st_size
    os.truncate(segment(tmp_path), size - cut)
    journal = open_journal(tmp_path)
    assert contents(journal) == before
    fill(journal, 1, term=2)
    journal.flush()
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.last_term == 2
    journal.close()


def test_an_unfinished_group_commit_is_cut_at_its_first_missing_page(tmp_path: Path) -> None:
    """Pages reach the disk in any order: a good record may follow a bad one in a write that was never acknowledged."""
    journal = open_journal(tmp_path)
    fill(journal, 3)
    journal.flush()
    good = segment(tmp_path).stat().st_size
    before = contents(journal)
    fill(journal, 3)
    journal.flush()
    journal.close()
    damage(segment(tmp_path), good + 40)
    journal = open_journal(tmp_path)
    assert contents(journal) == before
    journal.close()


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0xFF]))


def test_damage_before_the_tail_is_refused_with_file_and_offset(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for _ in range(4):
        fill(journal, 2)
        journal.flush()
    journal.close()
    record = segments.SEGMENT_HEADER_BYTES + segments.RECORD_HEADER_BYTES + 100
    damage(segment(tmp_path), record + 50)
    with pytest.raises(CorruptData, match=rf"{segment(tmp_path).name}: damaged record at offset {record};"):
        open_journal(tmp_path)


def test_damage_in_an_old_segment_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=1024)
    fill(journal, 30)
    journal.flush()
    journal.close()
    damage(segment(tmp_path, 1), 60)
    with pytest.raises(CorruptData, match="newer segments exist"):
        open_journal(tmp_path)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=1024)
    fill(journal, 30)
    journal.flush()
    journal.close()
    segment(tmp_path, 2).unlink()
    with pytest.raises(CorruptData, match="segment 2 is missing"):
        open_journal(tmp_path)


def test_a_log_that_ends_before_the_applied_state_is_refused(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 5)
    journal.flush()
    journal.close()
    with pytest.raises(CorruptData, match="ends at index 5, but the state has applied 6"):
        open_journal(tmp_path, commit_floor=6)


def test_damage_while_running_is_found_when_the_entry_is_read(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, tail_bytes_max=0)
    fill(journal, 3)
    journal.flush()
    damage(segment(tmp_path), segments.SEGMENT_HEADER_BYTES + segments.RECORD_HEADER_BYTES + 5)
    with pytest.raises(CorruptData, match="index 1"):
        journal.data(1)
    journal.close()


def test_an_empty_new_segment_is_used_again(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, segment_bytes=1024)
    fill(journal, 30)
    journal.flush()
    before = contents(journal)
    last = journal._segment
    journal.close()
    segment(tmp_path, last + 1).write_bytes(b"RAFT")  # a crash right after the file was made
    journal = open_journal(tmp_path, segment_bytes=1024)
    assert contents(journal) == before
    fill(journal, 1)
    journal.flush()
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.last_index == 31
    journal.close()


def test_term_and_vote_survive_one_damaged_copy_and_refuse_two(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.setCurrentTerm(7, "n2")
    journal.close()
    term = tmp_path / "journal" / "term"
    damage(term, 14)
    journal = open_journal(tmp_path)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, "n2")
    journal.close()
    damage(term, 14)
    damage(term, 4096 + 14)
    with pytest.raises(CorruptData, match="both copies of the term and vote are damaged"):
        open_journal(tmp_path)


def test_a_new_journal_is_safe_name_by_name(tmp_path: Path) -> None:
    """A power cut during the first start once left a term file without a slot, which was taken for damage; and the
    folder's own name was never synced, so that a cut before the first checkpoint could take log and votes with it."""
    seen: list[tuple[str, Path]] = []
    term = tmp_path / "journal" / "term"

    def look(what: str, path: Path) -> None:
        seen.append((what, path))
        assert not term.exists() or len(term.read_bytes()) == 2 * 4096

    with fsync.simulated(WatchedKernel(look)):
        open_journal(tmp_path).close()
    assert seen[0] == ("directory", tmp_path)
    assert seen[-2:] == [("replace", term), ("directory", term.parent)]
    journal = open_journal(tmp_path)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (0, None)
    journal.close()


@pytest.mark.parametrize("slot", [0, 1])
def test_whatever_slot_is_damaged_no_older_vote_comes_back(tmp_path: Path, slot: int) -> None:
    journal = open_journal(tmp_path)
    for term in range(1, 9):
        journal.setCurrentTerm(term, "n1")
    journal.close()
    path = tmp_path / "journal" / "term"
    for offset in range(40):  # every byte that says anything, and some behind
        damage(path, slot * 4096 + offset)
        journal = open_journal(tmp_path)
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (8, "n1")
        journal.close()


@pytest.mark.parametrize("lost", ["missing", "empty"])
def test_a_term_that_is_lost_beside_a_log_is_refused(tmp_path: Path, lost: str) -> None:
    journal = open_journal(tmp_path)
    fill(journal, 3)
    journal.flush()
    journal.setCurrentTerm(7, "n2")
    journal.close()
    term = tmp_path / "journal" / "term"
    term.unlink()
    if lost == "empty":
        term.touch()
    with pytest.raises(CorruptData, match="term and vote are missing from offset 0 on"):
        open_journal(tmp_path)


def test_the_term_never_goes_back(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.setCurrentTerm(7, None)
    with pytest.raises(ValueError, match="go back"):
        journal.setCurrentTerm(6, None)
    journal.close()


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 5)),
            st.tuples(st.just("truncate"), st.integers(1, 5)),
            st.just(("flush", 0)),
            st.just(("restart", 0)),
            st.tuples(st.just("tear"), st.integers(0, 300)),
        ),
        max_size=30,
    )
)
def test_any_sequence_keeps_what_was_durable(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """A model of the log: what was flushed comes back, whatever else happened and wherever the tail is torn."""
    path = tmp_path_factory.mktemp("journal")
    journal, model, durable, term = open_journal(path, segment_bytes=700, tail_bytes_max=500), [], 0, 1
    history: dict[tuple[int, int], bytes] = {}
    for step, amount in steps:
        if step == "add":
            for _ in range(amount):
                data = f"{len(model) + 1}/{term}".encode() * 3
                journal.add(data, len(model) + 1, term)
                model.append((len(model) + 1, term, data))
                history[(len(model), term)] = data
        elif step == "truncate":
            keep = max(0, len(model) - amount)
            journal.deleteEntriesFrom(keep)
            del model[keep:]
            durable, term = min(durable, keep), term + 1
        elif step == "flush":
            journal.flush()
            durable = len(model)
        else:
            journal.close()
            if step == "tear":
                tear(path, amount, journal)
            journal = open_journal(path, segment_bytes=700, tail_bytes_max=500)
            found = contents(journal)
            if step == "restart":
                assert found[:durable] == model[:durable]
            # What was removed or not flushed may be there again, but only as it once was.
            assert all(history[(index, found_term)] == data for index, found_term, data in found)
            model, durable = found, len(found)
            term = max([term, *(entry[1] for entry in found)])
    journal.close()


def tear(path: Path, amount: int, journal: Journal) -> None:
    """Cut bytes off the newest segment, down to its header: an unfinished last write."""
    paths = sorted((path / "journal").glob("*.segment"))
    if paths:
        size = paths[-1].stat().st_size
        os.truncate(paths[-1], max(min(size, segments.SEGMENT_HEADER_BYTES), size - amount))
