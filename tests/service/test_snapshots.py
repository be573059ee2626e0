"""Installing a snapshot: whatever step a crash interrupts, the next start finishes it, and nothing newer is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from raftfs import fsync
from raftfs.consensus import NO_OP, Journal
from raftfs.errors import CorruptData
from raftfs.service.snapshots import install
from raftfs.state import Envelope, MakeDirectory, Reader, StateMachine, check_copy, copy_database, encode
from raftfs.testing.fakes import WatchedKernel
from raftfs.versions import FORMAT_VERSION

OURS, THEIRS = 5, 40


def build_state(path: Path, entries: int) -> None:
    state = StateMachine(path, version=FORMAT_VERSION)
    for index in range(state.applied_index + 1, entries + 1):
        state.apply(index, 1, [encode(Envelope(MakeDirectory(f"/d{index}"), index))])
    state.close()


def build_journal(data_dir: Path, entries: int, *, term: int = 1) -> None:
    journal = Journal(data_dir / "journal", commit_floor=None)
    for index in range(journal.last_index + 1, entries + 1):
        journal.add(b"\x10" + b"x" * 20, index, term)
    journal.flush()
    journal.setCurrentTerm(7, "n3")
    journal.close()


@pytest.fixture
def behind(tmp_path: Path) -> Path:
    """A data directory with 5 entries, and a fetched snapshot at 40."""
    data_dir = tmp_path / "n1"
    data_dir.mkdir()
    build_state(data_dir / "state.db", OURS)
    build_journal(data_dir, OURS)
    build_state(tmp_path / "leader.db", THEIRS)
    (data_dir / "snapshot").mkdir()
    copy_database(tmp_path / "leader.db", data_dir / "snapshot" / "incoming.db")
    announce(data_dir)
    return data_dir


def announce(data_dir: Path) -> None:
    folder = data_dir / "snapshot"
    digest = blake3((folder / "incoming.db").read_bytes()).digest()
    (folder / "ready.json").write_bytes(msgspec.json.encode({"index": THEIRS, "term": 1, "digest": digest}))


def check_installed(data_dir: Path) -> None:
    state = StateMachine(data_dir / "state.db")
    journal = Journal(data_dir / "journal", commit_floor=state.applied_index)
    assert state.applied_index == THEIRS
    assert (journal.first_index, journal.last_index, journal.last_term) == (THEIRS, THEIRS, 1)
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, "n3"), "a vote is never forgotten"
    journal.add(b"\x10next", THEIRS + 1, 7)
    journal.flush()
    journal.close()
    assert state.apply(THEIRS + 1, 7, [encode(Envelope(MakeDirectory("/next"), THEIRS + 1))])[0].stat is not None
    state.close()
    reader = Reader(data_dir / "state.db")
    assert all(reader.stat(f"/d{index}") is not None for index in range(1, THEIRS + 1))
    reader.close()
    assert not (data_dir / "snapshot").exists()


def test_a_copy_is_whole_and_says_how_far_it_is(tmp_path: Path) -> None:
    state = StateMachine(tmp_path / "state.db", version=FORMAT_VERSION)
    state.apply(1, 1, [encode(Envelope(MakeDirectory("/in"), 1))])
    copy_database(tmp_path / "state.db", tmp_path / "copy.db")
    state.apply(2, 1, [encode(Envelope(MakeDirectory("/after"), 2))])
    assert check_copy(tmp_path / "copy.db").index == 1
    assert check_copy(tmp_path / "copy.db").state_hash != state.state_hash
    state.close()
    raw = bytearray((tmp_path / "copy.db").read_bytes())
    raw[4096 * 3 : 4096 * 3 + 200] = b"\xff" * 200
    (tmp_path / "copy.db").write_bytes(raw)
    with pytest.raises(CorruptData):
        check_copy(tmp_path / "copy.db")


def test_a_snapshot_takes_the_place_of_state_and_log(behind: Path) -> None:
    assert install(behind)
    check_installed(behind)
    assert not install(behind)


def test_the_new_database_never_meets_the_old_write_ahead_log(behind: Path) -> None:
    """Both changes of names were synced together once. A disk that kept the second and not the first would have left
    the old log beside the new database, and SQLite would have written its pages into it."""
    log, incoming = behind / "state.db-wal", behind / "snapshot" / "incoming.db"
    synced_without_log = False

    def look(what: str, path: Path) -> None:
        nonlocal synced_without_log
        if incoming.exists():
            synced_without_log = (what, path) == ("directory", behind) and not log.exists()
        assert incoming.exists() or synced_without_log

    with fsync.simulated(WatchedKernel(look)):
        assert install(behind)
    check_installed(behind)


def test_without_a_snapshot_nothing_happens(tmp_path: Path) -> None:
    assert not install(tmp_path)


def test_a_snapshot_that_is_not_whole_is_dropped(behind: Path) -> None:
    (behind / "snapshot" / "ready.json").unlink()
    assert not install(behind)
    assert not (behind / "snapshot").exists()
    state = StateMachine(behind / "state.db")
    assert state.applied_index == OURS
    state.close()


def begin_log(data_dir: Path) -> None:
    Journal.begin_at(data_dir / "journal", THEIRS, 1, NO_OP)


def drop_wal(data_dir: Path) -> None:
    begin_log(data_dir)
    for suffix in ("-wal", "-shm", "-sums"):
        (data_dir / f"state.db{suffix}").unlink(missing_ok=True)


def replace_state(data_dir: Path) -> None:
    drop_wal(data_dir)
    os.replace(data_dir / "snapshot" / "incoming.db", data_dir / "state.db")


@pytest.mark.parametrize("step", [begin_log, drop_wal, replace_state], ids=lambda step: step.__name__)
def test_an_interrupted_installation_is_finished(behind: Path, step: object) -> None:
    assert callable(step)
    step(behind)
    install(behind)
    check_installed(behind)


def test_an_installation_may_be_interrupted_again_and_again(behind: Path) -> None:
    for _ in range(3):
        begin_log(behind)
    assert install(behind)
    check_installed(behind)


def test_a_crash_after_the_announcement_was_removed_leaves_a_whole_node(behind: Path) -> None:
    replace_state(behind)
    (behind / "snapshot" / "ready.json").unlink()
    assert not install(behind)
    check_installed(behind)


def test_entries_beyond_the_snapshot_are_never_thrown_away(behind: Path) -> None:
    """After the snapshot was fetched, a new leader with a longer log brought the member level: its acknowledgements
    for what lies beyond the snapshot stand."""
    build_journal(behind, THEIRS + 10)
    assert install(behind)
    journal = Journal(behind / "journal", commit_floor=OURS)
    assert journal.last_index == THEIRS + 10
    journal.close()


def test_a_state_beyond_the_snapshot_is_never_thrown_away(behind: Path) -> None:
    build_journal(behind, THEIRS + 10)
    build_state(behind / "state.db", THEIRS + 5)
    assert install(behind)
    state = StateMachine(behind / "state.db")
    assert state.applied_index == THEIRS + 5
    state.close()


def test_a_log_that_differs_at_the_snapshot_gives_way(behind: Path) -> None:
    """What conflicts with a committed entry cannot be acknowledged by a majority."""
    shutil.rmtree(behind / "journal")
    build_journal(behind, THEIRS + 10, term=3)
    assert install(behind)
    check_installed(behind)


def test_a_damaged_announcement_is_refused_by_name(behind: Path) -> None:
    (behind / "snapshot" / "ready.json").write_bytes(b"{")
    with pytest.raises(CorruptData, match=r"ready\.json is damaged"):
        install(behind)


@pytest.mark.parametrize("file", ["incoming.db", "ready.json"])
def test_a_snapshot_that_was_damaged_on_the_disk_is_never_installed(behind: Path, file: str) -> None:
    """Of the copy, any byte; of the announcement, a digit of the index that still is one."""
    path = behind / "snapshot" / file
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"40") if file == "ready.json" else len(raw) - 3000] ^= 1
    path.write_bytes(raw)
    install(behind)
    assert not (behind / "snapshot").exists()
    state = StateMachine(behind / "state.db")
    journal = Journal(behind / "journal", commit_floor=state.applied_index)
    assert (state.applied_index, journal.first_index, journal.last_index) == (OURS, 1, OURS)
    journal.close()
    state.close()
