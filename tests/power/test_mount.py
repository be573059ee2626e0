"""The file system with the kernel in front of it, without raftfs: what was synced survives a power cut, and what was
not is lost or torn, also where the kernel still had it."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raftfs.testing.powercut.disk import PowerDisk

from .needs import ROOT

pytestmark = ROOT


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerDisk]:
    disk = PowerDisk(tmp_path / "mount", tmp_path / "trees", "test")
    disk.power_on()
    yield disk
    disk.close()


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def power_cycle(disk: PowerDisk) -> None:
    disk.power_off()
    disk.power_on()


def test_synced_bytes_survive_with_their_names(disk: PowerDisk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"synced" * 10_000)
    sync(path)
    sync(disk.folder)
    for _ in range(5):
        power_cycle(disk)
        assert path.read_bytes() == b"synced" * 10_000
    assert disk.life == 5


def test_unsynced_writes_are_lost_or_torn(disk: PowerDisk) -> None:
    paths = [disk.folder / f"{number:02}" for number in range(40)]
    for path in paths:
        path.write_bytes(b"0" * 16384)
        sync(path)
    sync(disk.folder)
    for path in paths:
        with path.open("r+b") as file:
            file.write(b"1" * 16384)
    power_cycle(disk)
    kinds = {frozenset(path.read_bytes()) for path in paths}
    assert kinds == {frozenset(b"0"), frozenset(b"1"), frozenset(b"01")}, "lost, kept and torn"
    assert disk.counts["unsynced_files"] == 40


def test_names_need_their_directory_synced(disk: PowerDisk) -> None:
    left = []
    for number in range(12):
        new, old = disk.folder / f"{number}.new", disk.folder / str(number)
        old.write_bytes(b"old")
        sync(old)
        sync(disk.folder)
        new.write_bytes(b"new")
        sync(new)
        os.replace(new, old)
        power_cycle(disk)
        left.append(old.read_bytes())
    assert set(left) == {b"old", b"new"}


def test_mapped_memory_is_durable_once_it_is_synced_and_not_before(disk: PowerDisk) -> None:
    lost = 0
    for number in range(8):
        path = disk.folder / str(number)
        path.write_bytes(bytes(8192))
        sync(path)
        sync(disk.folder)
        with path.open("r+b") as file, closing(mmap.mmap(file.fileno(), 8192)) as view:
            view[:6] = b"synced"
            os.fsync(file.fileno())
            view[4096:4100] = b"lost"
            disk.cut()
            power_cycle(disk)
        data = path.read_bytes()
        assert data[:6] == b"synced"
        lost += data[4096:4100] != b"lost"
    assert lost == 8, "the kernel had not written it, and must not do so later"


def test_nothing_that_the_kernel_cached_comes_back(disk: PowerDisk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"cached")
    assert path.read_bytes() == b"cached"
    assert path.stat().st_size == 6
    for _ in range(20):
        power_cycle(disk)
        if not path.exists():
            return
        if path.stat().st_size < 6:
            assert len(path.read_bytes()) == path.stat().st_size
            return
        path.unlink()
        path.write_bytes(b"cached")
    pytest.fail("twenty cuts took nothing")


def test_after_the_cut_nobody_is_answered(disk: PowerDisk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"1")
    sync(path)
    sync(disk.folder)
    disk.cut_after(3)
    answered: list[int] = []

    def write() -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            for number in range(10):
                os.pwrite(fd, b"x", number)
                answered.append(number)
        except OSError:
            pass  # what waited is told when the file system is gone
        finally:
            os.close(fd)

    thread = threading.Thread(target=write)
    thread.start()
    assert disk.wait_cut(30)
    disk.power_off()
    thread.join(30)
    assert answered == [0, 1], "the third change was never done"
    disk.power_on()


def test_a_wal_database_works_and_keeps_what_was_checkpointed(disk: PowerDisk) -> None:
    path = disk.folder / "state.db"
    for round_ in range(6):
        with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(path)) as reader:
            assert db.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("CREATE TABLE IF NOT EXISTS t (a INTEGER, b BLOB)")
            kept = [row[0] for row in db.execute("SELECT a FROM t ORDER BY a")]
            assert kept == list(range(len(kept)))
            assert len(kept) >= round_ * 20, "what was checkpointed is lost"
            db.executemany(
                "INSERT INTO t VALUES (?, ?)", [(n, bytes(3000)) for n in range(len(kept), (round_ + 1) * 20)]
            )
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sync(disk.folder)
            for number in range(10):
                db.execute("INSERT INTO t VALUES (?, ?)", ((round_ + 1) * 20 + number, bytes(3000)))
                db.commit()
            assert reader.execute("SELECT count(*) FROM t").fetchone()[0] >= (round_ + 1) * 20 + 10
            disk.cut()
            disk.power_off()
        disk.power_on()
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_locks_sendfile_and_space(disk: PowerDisk) -> None:
    path = disk.folder / "a"
    path.write_bytes(b"0123456789" * 1000)
    with path.open("rb") as one, path.open("rb") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left, right = socket.socketpair()
        with left, right:
            assert os.sendfile(left.fileno(), one.fileno(), 0, 100) == 100
            assert right.recv(200) == b"0123456789" * 10
    found = os.statvfs(disk.folder)
    assert 0 < found.f_bavail < found.f_blocks
    os.truncate(path, 10)
    assert path.read_bytes() == b"0123456789"
    with pytest.raises(OSError):
        disk.folder.joinpath("nowhere", "b").write_bytes(b"")


def test_a_seed_decides(tmp_path: Path) -> None:
    left = []
    for number, seed in enumerate(("7", "7", "8")):
        disk = PowerDisk(tmp_path / f"m{number}", tmp_path / f"t{number}", seed)
        try:
            disk.power_on()
            for name in range(20):
                (disk.folder / f"{name:02}").write_bytes(bytes([name]) * 9000)
            disk.power_off()
            left.append({path.name: path.read_bytes() for path in disk.tree.iterdir()})
        finally:
            disk.close()
    assert left[0] == left[1] != left[2]
