"""Rule 1: nothing is acknowledged, voted or counted before it is durable here."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pysyncobj.journal
import pytest
from pysyncobj.journal import FIRST_RECORD_OFFSET, FileJournal

from raftfs.consensus.journal import Journal

from .cluster import ELECTION_S
from .guarded_cluster import GuardedCluster, GuardedMaker
from .plain_cluster import PlainMaker


def test_plain_pysyncobj_never_asks_for_durability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which justifies the model of the disk: what the kernel has not written back by itself, a power loss takes."""
    synced: list[str] = []

    class Watched(mmap.mmap):
        def flush(self, *args: Any) -> None:
            synced.append("msync")

    monkeypatch.setattr(pysyncobj.journal.mmap, "mmap", Watched)
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append("fsync"))
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append("fdatasync"))
    journal = FileJournal(str(tmp_path / "journal"))
    for number in range(2, 200):
        journal.add(b"\x00" * 100, number, 1)
    journal.setCurrentTerm(7, "b")
    journal.setRaftCommitIndex(100)
    journal.onOneSecondTimer()
    assert synced == []
    journal._destroy()


def test_plain_pysyncobj_votes_twice_in_a_term_after_a_power_loss(plain: PlainMaker) -> None:
    cluster = plain()
    network = cluster.network
    for disk in cluster.disks.values():
        disk.write_back()
    network.isolate("b")
    cluster.elect("a")
    term = cluster.term("a")
    network.isolate("a")
    cluster.crash("c", power=True)  # its vote for a is gone
    cluster.start("c")
    network.connect("b", "c")
    cluster.elect("b")
    assert cluster.is_leader("a")
    assert cluster.is_leader("b")
    assert cluster.term("b") == term


def test_plain_pysyncobj_loses_acknowledged_writes_when_two_of_three_lose_power(plain: PlainMaker) -> None:
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    for disk in cluster.disks.values():
        disk.write_back()
    cluster.network.isolate("c")
    write = cluster.put("a", "acknowledged")
    cluster.run(0.5)
    assert write.acknowledged
    for name in "ab":
        cluster.crash(name, power=True)
    for name in "ab":
        cluster.restart(name)
    cluster.elect("b")
    cluster.run(1.0)
    assert {name: cluster.values(name) for name in "abc"} == {"a": [], "b": [], "c": []}


def test_plain_pysyncobj_with_a_commit_index_beyond_its_log_acknowledges_alone(plain: PlainMaker) -> None:
    """The commit index lies in another file than the log; after a power loss it may be the newer one."""
    cluster = plain()
    cluster.elect("a")
    cluster.run(0.5)
    for disk in cluster.disks.values():
        disk.write_back()
    for number in range(6):
        cluster.put("a", number)
    cluster.run(2.0)
    for name in "abc":
        cluster.disks[name].write_back_meta()
        cluster.crash(name, power=True)
    for name in "abc":
        cluster.restart(name)
    cluster.elect("a")
    cluster.network.isolate("a")
    alone = cluster.put("a", "on one node only")
    cluster.clock.advance(0.2)
    cluster.tick("a")
    cluster.tick("a")
    assert alone.acknowledged

    cluster.crash("a")
    cluster.elect("b")
    cluster.run(1.0)
    assert alone.value not in cluster.values("b")
    assert alone.value not in cluster.values("c")


COMPACTION = """
import os, signal, sys
from pysyncobj.journal import FileJournal
journal = FileJournal(sys.argv[1])
for number in range(1, 2001):
    journal.add(b"%d" % number, number, 1)
add, added = journal.add, 0
def add_and_die(*entry):
    global added
    add(*entry)
    added += 1
    if added == 100:
        os.kill(os.getpid(), signal.SIGKILL)
journal.add = add_and_die
journal.deleteEntriesTo(500)
"""


def test_plain_pysyncobj_killed_while_it_compacts_its_journal_loses_the_rest_of_it(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    killed = subprocess.run([sys.executable, "-c", COMPACTION, path], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    journal = FileJournal(path)
    assert len(journal) == 100  # of 1,500 that compaction was to keep
    assert journal[-1][1] == 600
    journal._destroy()


@pytest.fixture
def journal_file(tmp_path: Path) -> Path:
    """A journal of 100 entries whose commands are 100 bytes each."""
    path = tmp_path / "journal"
    journal = FileJournal(str(path))
    for number in range(1, 101):
        journal.add(b"%03d" % number + b"." * 97, number, 1)
    journal._destroy()
    return path


RECORD_BYTES = 4 + 16 + 100 + 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its file open, too
def test_plain_pysyncobj_does_not_start_on_a_torn_tail(journal_file: Path) -> None:
    os.truncate(journal_file, FIRST_RECORD_OFFSET + 99 * RECORD_BYTES + 10)
    with pytest.raises(struct.error):
        FileJournal(str(journal_file))


def test_plain_pysyncobj_accepts_a_damaged_record(journal_file: Path) -> None:
    damaged = bytearray(journal_file.read_bytes())
    damaged[FIRST_RECORD_OFFSET + 50 * RECORD_BYTES + 4 + 16] ^= 0xFF
    journal_file.write_bytes(damaged)
    journal = FileJournal(str(journal_file))
    assert len(journal) == 100
    assert journal[50][0] == bytes([ord("0") ^ 0xFF]) + b"51" + b"." * 97
    journal._destroy()


def test_plain_pysyncobj_accepts_a_gap_in_its_indices(journal_file: Path) -> None:
    """Pages of one file that were written back at different times: an older record in the middle."""
    damaged = bytearray(journal_file.read_bytes())
    at = FIRST_RECORD_OFFSET + 50 * RECORD_BYTES + 4
    damaged[at : at + 16] = struct.pack("<QQ", 7, 9)
    journal_file.write_bytes(damaged)
    journal = FileJournal(str(journal_file))
    assert [entry[1:] for entry in journal[49:52]] == [(50, 1), (7, 9), (52, 1)]
    journal._destroy()


def test_plain_pysyncobj_past_4_gib_keeps_an_entry_in_memory_that_is_not_in_its_file(tmp_path: Path) -> None:
    journal = FileJournal(str(tmp_path / "journal"))

    class Sparse:
        def write(self, offset: int, values: bytes) -> None:
            pass

    file = journal._FileJournal__journalFile
    journal._FileJournal__journalFile = Sparse()
    journal._FileJournal__currentOffset = 2**32 - 10
    with pytest.raises(struct.error):
        journal.add(b"\x00command", 1, 1)
    assert len(journal) == 1
    file._destroy()


def two_candidates_ask_a_node_that_loses_power_in_between(cluster: GuardedCluster) -> None:
    network = cluster.network
    network.isolate("b")
    cluster.held_disks = {"c"}
    cluster.elect("a")
    term = cluster.term("a")
    network.isolate("a")
    cluster.crash("c", power=True)  # what a sent as leader is gone; its vote must not be
    cluster.start("c")
    network.connect("b", "c")
    cluster.clock.advance(ELECTION_S)
    for _ in range(2):  # pre-votes, then votes
        cluster.tick("b")
        network.drain()
    assert cluster.is_leader("a")
    assert cluster.term("a") == cluster.term("b") == term


def test_raftfs_votes_once_in_a_term_whatever_happens(guarded: GuardedMaker) -> None:
    cluster = guarded()
    two_candidates_ask_a_node_that_loses_power_in_between(cluster)
    assert not cluster.is_leader("b")


def test_without_a_durable_vote_two_nodes_lead_one_term(guarded: GuardedMaker) -> None:
    cluster = guarded(forget_votes=True)
    two_candidates_ask_a_node_that_loses_power_in_between(cluster)
    assert cluster.is_leader("b")


def test_raftfs_acknowledges_what_two_of_three_have_on_their_disks(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    cluster.network.isolate("c")
    cluster.held_disks = {"b"}
    write = cluster.put("a", "acknowledged")
    cluster.run(0.5)
    assert cluster.log("b") == cluster.log("a")
    assert not write.acknowledged  # b has it, but not on its disk
    cluster.held_disks = {"a"}
    second = cluster.put("a", "acknowledged too")
    cluster.sync("b")
    cluster.run(0.2)
    assert write.acknowledged
    assert not second.acknowledged  # here it is the leader's own disk that is missing
    assert cluster.nodes["a"].engine.commit_index == cluster.log("a")[-2][0]
    cluster.held_disks = set()
    cluster.run(0.2)
    assert second.acknowledged

    for name in "ab":
        cluster.crash(name, power=True)
    for name in "ab":
        cluster.restart(name)
    cluster.elect("b")
    cluster.run(1.0)
    assert cluster.values("a") == cluster.values("b") == cluster.values("c") == ["acknowledged", "acknowledged too"]


def test_raftfs_learns_its_commit_index_anew_after_a_restart(guarded: GuardedMaker) -> None:
    cluster = guarded()
    cluster.elect("a")
    cluster.run(0.5)
    writes = [cluster.put("a", f"{number}") for number in range(6)]
    cluster.run(1.0)
    assert all(write.acknowledged for write in writes)
    for name in "abc":
        cluster.crash(name, power=True)  # the state machine forgets what it applied; the log does not
    for name in "abc":
        cluster.restart(name)
    assert [cluster.nodes[name].engine.commit_index for name in "abc"] == [1, 1, 1]
    cluster.elect("a")
    cluster.network.isolate("a")
    alone = cluster.put("a", "on one node only")
    cluster.run_only("a", 0.4)
    assert not alone.acknowledged
    cluster.crash("a")
    cluster.elect("b")
    cluster.run(1.0)
    assert cluster.values("b") == cluster.values("c") == [write.value for write in writes]


GROUP_COMMIT = """
import os, signal, sys
from pathlib import Path
from raftfs import fsync
from raftfs.consensus.journal import Journal
journal = Journal(Path(sys.argv[1]), segment_bytes=8192)
for number in range(1, 1001):
    journal.add(b"%d" % number, number, 1)
    if number % 100 == 0:
        journal.flush()
for number in range(501, 2001):
    if number == 501:
        journal.deleteEntriesFrom(500)
    journal.add(b"%d again" % number, number, 2)
flush = journal.take()
del flush.parts[len(flush.parts) // 2 :]  # half of it is written; then
journal.write(flush)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_raftfs_killed_in_the_middle_of_a_group_commit_keeps_all_that_was_durable(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    killed = subprocess.run([sys.executable, "-c", GROUP_COMMIT, str(path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    journal = Journal(path, segment_bytes=8192)
    assert 501 < journal.last_index < 2000
    assert [journal.data(index) for index in (1, 500, 501)] == [b"1", b"500", b"501 again"]
    assert [journal.term(index) for index in (500, 501, journal.last_index)] == [1, 2, 2]
    journal.close()


def test_raftfs_never_rewrites_its_journal(tmp_path: Path) -> None:
    """What PySyncObj does to compact a journal is refused; its beginning goes away by whole segments."""
    journal = Journal(tmp_path / "journal")
    journal.add(b"entry", 1, 1)
    with pytest.raises(NotImplementedError):
        journal.deleteEntriesTo(1)
    with pytest.raises(NotImplementedError):
        journal.clear()
    journal.close()
