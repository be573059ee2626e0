"""Entries, restarts, the hash, the file's format, damage, and full disks."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from raftfs.errors import CorruptData, StorageFull
from raftfs.state import (
    Applied,
    Code,
    Command,
    CommitFile,
    Copy,
    Envelope,
    MakeDirectory,
    Reader,
    Remove,
    Rename,
    SetMetadata,
    StateMachine,
    UploadBegin,
    UploadChunk,
    encode,
)
from raftfs.versions import FORMAT_VERSION

from .driver import Driver, chunk

REPLAY = Path(__file__).with_name("replay.py")


def random_entries(seed: int, count: int) -> list[list[bytes]]:
    """Entries of commands that mostly succeed, the same for the same seed."""
    draw = random.Random(seed)

    def path() -> str:
        return "".join(f"/{draw.choice('abcd')}" for _ in range(draw.randint(1, 3)))

    def command() -> Command:
        data = draw.randbytes(draw.randint(0, 6_000))
        return draw.choice(
            [
                MakeDirectory(path(), parents=True, exist_ok=True),
                CommitFile(path(), len(data), data=data, parents=True, metadata={"k": str(draw.random())}),
                CommitFile(path(), 100, upload=draw.randint(1, 20)),
                Rename(path(), path(), replace=True, parents=True),
                Copy(path(), path(), replace=True, parents=True),
                Remove(path(), recursive=draw.random() < 0.3),
                SetMetadata(path(), {"m": str(draw.random())}),
                UploadBegin(path(), 10_000),
                UploadChunk(draw.randint(1, 20), 0, chunk(draw.randint(1, 9))),
            ]
        )

    def envelope(number: int) -> bytes:
        key = f"key-{draw.randint(1, 50)}" if draw.random() < 0.3 else None
        return encode(Envelope(command(), number + draw.randint(-5, 5) + 10, key, b"f" if key else b""))

    return [[envelope(number) for _ in range(draw.randint(0, 20))] for number in range(count)]


def apply_all(path: Path, entries: Sequence[Sequence[bytes]]) -> bytes:
    machine = StateMachine(path, version=FORMAT_VERSION)
    try:
        for index, commands in enumerate(entries, 1):
            machine.apply(index, 1, commands)
        return machine.state_hash
    finally:
        machine.close()


def replay(state: Path, entries: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(REPLAY), str(state), str(entries)], stdout=subprocess.PIPE, text=True)


def content(path: Path) -> list[list[object]]:
    """Every row of every table."""
    db = sqlite3.connect(path)
    try:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return [db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables]
    finally:
        db.close()


def test_new_state_is_at_zero(driver: Driver) -> None:
    machine = driver.machine
    assert (machine.applied_index, machine.applied_term, machine.revision) == (0, 0, 0)
    assert driver.reader.applied() == Applied(0, 0, 0, bytes(32), FORMAT_VERSION)


def test_empty_entry_moves_the_index(driver: Driver) -> None:
    before = driver.machine.state_hash
    assert driver.machine.apply(1, 3, []) == []
    assert (driver.machine.applied_index, driver.machine.applied_term, driver.machine.revision) == (1, 3, 0)
    assert driver.machine.state_hash != before
    assert driver.reader.applied() == Applied(1, 3, 0, driver.machine.state_hash, FORMAT_VERSION)


def test_applied_entries_are_skipped_and_gaps_are_an_error(driver: Driver) -> None:
    driver.do(MakeDirectory("/a"))
    driver.do(MakeDirectory("/b"))
    before = driver.reader.applied()
    for index in (0, 1, 2):
        assert driver.machine.apply(index, 1, [encode(Envelope(MakeDirectory("/c"), 1))]) == []
    with pytest.raises(ValueError):
        driver.machine.apply(4, 1, [])
    assert driver.reader.applied() == before


def test_restart_goes_on_where_it_was(driver: Driver) -> None:
    driver.put("/f", b"1")
    before = driver.reader.applied()
    driver.reopen()
    assert driver.reader.applied() == before
    machine = driver.machine
    assert (
        Applied(machine.applied_index, machine.applied_term, machine.revision, machine.state_hash, machine.version)
        == before
    )
    assert machine.apply(1, 1, [encode(Envelope(MakeDirectory("/c"), 1))]) == []
    inode = driver.stat("/f").inode
    driver.put("/g", b"2")
    assert driver.stat("/g").inode > inode


def test_clock_never_goes_back(driver: Driver) -> None:
    driver.do(MakeDirectory("/a"), at_ms=9_000)
    driver.do(MakeDirectory("/b"), at_ms=4_000)
    driver.reopen()
    driver.do(MakeDirectory("/c"), at_ms=5_000)
    assert [driver.stat(path).created_ms for path in ("/a", "/b", "/c")] == [9_000, 9_000, 9_000]


@pytest.mark.parametrize("time_ms", [-1, 2**53 + 1, 2**64 - 1])
def test_impossible_time_is_refused(driver: Driver, time_ms: int) -> None:
    assert driver.do(MakeDirectory("/a"), at_ms=time_ms).code is Code.INVALID
    driver.do(MakeDirectory("/b"), at_ms=5)
    assert driver.stat("/b").created_ms == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"not msgpack",
        msgspec.msgpack.encode([["Unknown", 1], 1]),
        msgspec.msgpack.encode([["MakeDirectory", 7], 1]),
        msgspec.msgpack.encode([["MakeDirectory", "/a"]]),
        msgspec.msgpack.encode(["MakeDirectory", "/a"]),
        msgspec.msgpack.encode([["MakeDirectory", "/\udcff".encode("utf-8", "surrogatepass")], 1]),
        b"\x91" * 100_000,
        encode(Envelope(MakeDirectory("/a"), 1))[:-1],
    ],
)
def test_undecodable_command_is_refused_and_the_rest_of_the_entry_applied(driver: Driver, data: bytes) -> None:
    results = driver.entry(data, encode(Envelope(MakeDirectory("/b"), 1)))
    assert [result.code for result in results] == [Code.INVALID, Code.CREATED]
    assert driver.names("/") == ["/b"]


def test_failed_transaction_leaves_nothing_behind(driver: Driver) -> None:
    """A bug in the middle of an entry: it raises, and neither the database nor the counters keep a trace."""
    driver.put("/f", b"1")
    before, rows = driver.reader.applied(), driver.everything()

    def bug(command: object) -> object:
        raise ZeroDivisionError

    good = driver.machine._handlers[Remove]
    driver.machine._handlers[Remove] = bug  # type: ignore[assignment]
    entry = [
        encode(Envelope(command, 10_000, key))
        for command, key in ((CommitFile("/d/x", 1, data=b"x", parents=True), "k"), (Remove("/f"), None))
    ]
    with pytest.raises(ZeroDivisionError):
        driver.entry(*entry)
    assert (driver.reader.applied(), driver.everything()) == (before, rows)
    assert driver.reader.outcome("k") is None
    driver.machine._handlers[Remove] = good
    results = driver.entry(*entry)
    assert [(result.code, result.revision) for result in results] == [(Code.CREATED, 2), (Code.OK, 3)]
    assert {driver.stat(path).inode for path in ("/d", "/d/x")} == {3, 4}, "counters went back too"


def test_command_that_writes_before_it_refuses_is_a_bug(driver: Driver) -> None:
    make = driver.machine._handlers[MakeDirectory]

    def wrong(command: Remove) -> object:
        make(MakeDirectory("/half"))
        return remove(command)

    remove = driver.machine._handlers[Remove]
    driver.machine._handlers[Remove] = wrong  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="refused command wrote"):
        driver.do(Remove("/none"))
    assert driver.reader.stat("/half") is None


def test_two_processes_compute_the_same(tmp_path: Path) -> None:
    entries = random_entries(seed=1, count=60)
    (tmp_path / "entries").write_bytes(msgspec.msgpack.encode(entries))
    processes = [replay(tmp_path / name, tmp_path / "entries") for name in ("one", "two")]
    hashes = [process.communicate()[0].split()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert hashes[0] == hashes[1] == apply_all(tmp_path / "three", entries).hex()
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "three")


def test_hash_shows_a_planted_difference(tmp_path: Path) -> None:
    """One byte of one file's content: results are the same, the hash is not, then and ever after."""
    entries = random_entries(seed=2, count=20)
    hashes = []
    for number, data in enumerate((b"same length", b"same lengtH")):
        changed = [list(entry) for entry in entries]
        changed[3].append(encode(Envelope(CommitFile("/planted", len(data), data=data), 1)))
        hashes.append(apply_all(tmp_path / str(number), changed))
    assert hashes[0] != hashes[1]


def test_hash_shows_a_different_result(tmp_path: Path) -> None:
    """The same commands on a machine with a bug."""
    entries = random_entries(seed=3, count=20)
    right = apply_all(tmp_path / "right", entries)
    machine = StateMachine(tmp_path / "wrong", version=FORMAT_VERSION)
    machine._meta.last_inode += 1
    for index, commands in enumerate(entries, 1):
        machine.apply(index, 1, commands)
    assert machine.state_hash != right
    machine.close()


def test_hash_depends_on_index_and_term(tmp_path: Path) -> None:
    hashes = set()
    for number, terms in enumerate([(1, 1), (1, 2), (2, 2), (1,)]):
        machine = StateMachine(tmp_path / str(number), version=FORMAT_VERSION)
        for index, term in enumerate(terms, 1):
            machine.apply(index, term, [])
        hashes.add(machine.state_hash)
        machine.close()
    assert len(hashes) == 4


@pytest.mark.parametrize("stop_after", [1, 7, 23])
def test_killed_in_the_middle_of_applying(tmp_path: Path, stop_after: int) -> None:
    """SIGKILL at some moment behind an entry: the reopened state is a whole prefix, and the rest gives the same."""
    entries = random_entries(seed=stop_after, count=40)
    (tmp_path / "entries").write_bytes(msgspec.msgpack.encode(entries))
    process = replay(tmp_path / "killed", tmp_path / "entries")
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.strip() == str(stop_after):
                process.send_signal(signal.SIGKILL)
                break
    assert process.wait() == -signal.SIGKILL
    machine = StateMachine(tmp_path / "killed", version=FORMAT_VERSION)
    reached = machine.applied_index
    assert stop_after <= reached <= len(entries)
    assert machine.state_hash == apply_all(tmp_path / "prefix", entries[:reached])
    assert machine._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for index, commands in enumerate(entries, 1):
        machine.apply(index, 1, commands)
    machine.close()
    apply_all(tmp_path / "whole", entries)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_checkpoint_leaves_all_in_the_database_file(driver: Driver, tmp_path: Path) -> None:
    driver.put("/f", b"1" * 5_000)
    driver.machine.checkpoint()
    assert driver.path.with_name("state.db-wal").stat().st_size == 0
    copy = tmp_path / "copy.db"
    copy.write_bytes(driver.path.read_bytes())
    with Driver(copy) as other:
        assert other.read("/f") == b"1" * 5_000


def test_checkpoint_beside_a_reader_in_a_snapshot(driver: Driver) -> None:
    driver.put("/f", b"1")
    with driver.reader.snapshot():
        assert driver.read("/f") == b"1"
        driver.put("/f", b"2")
        driver.machine.checkpoint()
        assert driver.read("/f") == b"1"
    assert driver.read("/f") == b"2"


def test_reader_opens_without_a_writer(driver: Driver) -> None:
    driver.put("/f", b"1")
    driver.close()
    reader = Reader(driver.path)
    assert reader.stat("/f") is not None
    reader.close()
    driver.reopen()


def test_reader_cannot_write(driver: Driver) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        driver.reader._db.execute("DELETE FROM dirent")


def test_reader_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        Reader(tmp_path / "none.db")


def test_path_with_odd_characters(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%41\u00e9"
    folder.mkdir()
    with Driver(folder / "state.db") as driver:
        driver.put("/f", b"1")
    assert (folder / "state.db").exists()


def test_foreign_database_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "other.db")
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()
    for opened in (StateMachine, Reader):
        with pytest.raises(CorruptData, match=r"other\.db is not"):
            opened(tmp_path / "other.db")


@pytest.mark.parametrize("damage", ["text", "header", "cut", "no meta"])
def test_damaged_file_is_refused_by_name(driver: Driver, damage: str) -> None:
    driver.put("/f", b"1" * 9_000)
    if damage == "no meta":
        driver.machine._db.execute("DELETE FROM meta")
    driver.close()
    data = driver.path.read_bytes()
    if damage == "text":
        driver.path.write_bytes(b"hello, this is not a database " * 200)
    elif damage == "header":
        driver.path.write_bytes(bytes(100) + data[100:])
    elif damage == "cut":
        driver.path.write_bytes(data[: len(data) // 2])
    for opened in (StateMachine, Reader):
        with pytest.raises(CorruptData, match=r"state\.db"):
            opened(driver.path)


def test_damage_found_later_is_told_by_name(driver: Driver) -> None:
    """On a disk that goes bad while the node runs, what SQLite notices is told the same way."""
    driver.put("/f", b"1")
    (page,) = driver.machine._db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'dirent'").fetchone()
    driver.close()
    machine, reader = StateMachine(driver.path), Reader(driver.path)
    with driver.path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(CorruptData, match=r"state\.db"):
        reader.stat("/f")
    with pytest.raises(CorruptData, match=r"state\.db"):
        machine.apply(2, 1, [encode(Envelope(MakeDirectory("/a"), 1))])
    assert machine.applied_index == 1
    reader.close()
    machine.close()


def test_full_disk_is_told_and_the_entry_can_be_applied_later(driver: Driver) -> None:
    driver.put("/f", b"1")
    before = driver.reader.applied()
    db = driver.machine._db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    big = encode(Envelope(CommitFile("/big", 30_000, data=bytes(30_000)), 1))
    with pytest.raises(StorageFull, match=r"state\.db"):
        driver.entry(encode(Envelope(MakeDirectory("/d"), 1)), big)
    assert driver.reader.applied() == before
    assert driver.names("/") == ["/f"]
    db.execute("PRAGMA max_page_count = 1000000")
    assert driver.entry(big)[0].code is Code.CREATED


OPEN_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from raftfs.errors import StorageFull
from raftfs.state import StateMachine
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    StateMachine(Path(sys.argv[1]))
except StorageFull as error:
    print(error)
"""


def test_a_disk_too_full_to_open_the_database_is_told(tmp_path: Path) -> None:
    """SQLite calls it an I/O error: what has no room is the index of the WAL. A limit on sizes does the same."""
    StateMachine(tmp_path / "state.db").close()
    command = [sys.executable, "-c", OPEN_WITHOUT_ROOM, str(tmp_path / "state.db")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said == f"no space left for {tmp_path / 'state.db'}\n"


def test_relative_path_outlives_its_working_directory(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        machine = StateMachine(Path("state.db"))
    finally:
        os.chdir(before)
    machine.apply(1, 1, [])
    machine.checkpoint()
    machine.close()
    assert (tmp_path / "state.db").exists()
