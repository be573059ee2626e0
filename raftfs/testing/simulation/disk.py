"""A node's disk: real files in a directory, and a memory of what of them is durable.

The journal and the term file call ``raftfs.fsync``, which asks the :class:`SimulatedKernel`, which remembers the file
as it is at that instant. When the machine loses power, each file goes back to what was remembered, except that any of
the sectors that were written since may have reached the disk; a file whose directory was not synced may be gone. When
only the process dies, the kernel still holds everything that was written. SQLite syncs by itself, unseen from here:
its database file changes only at checkpoints, and of its write-ahead log a power loss leaves any beginning that is not
shorter than at the last checkpoint.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import NoReturn

from raftfs.consensus.journal import Flush, Journal
from raftfs.fsync import Kernel
from raftfs.testing.simulation.loop import current_process

SECTOR_BYTES = 64  # what a torn write loses or keeps as one; smaller than real ones, as the entries are
_DATABASE = "state.db"


class Disk:
    """The disk of one machine. ``root`` is where the files of its present life lie."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self._home, self._rng = root, rng
        self._life = 0
        self.root = root / "0"
        self.root.mkdir(parents=True)
        self.full = False
        self.fails = False
        self.ends_in: int | None = None
        """the process ends inside the sync with this number from now (0: the next one)"""
        self.forgets: str | None = None
        """syncs of files with this suffix do nothing: a planted fault"""
        self.syncs = 0
        self.torn = 0
        """files that held what was not durable when the power went"""
        self._durable: dict[str, bytes] = {}
        self._names: dict[str, set[str]] = {}
        self._log_synced_bytes = 0

    # --- while the machine runs ----------------------------------------------------------------------------------

    def sync_data(self, path: Path) -> None:
        if not path.is_relative_to(self.root):
            return
        self._sync()
        if self.forgets is None or not path.name.endswith(self.forgets):
            self._durable[self._key(path)] = path.read_bytes()
        if path == self.root / f"{_DATABASE}-wal":
            self._log_synced_bytes = path.stat().st_size

    def sync_directory(self, path: Path) -> None:
        if not path.is_relative_to(self.root):
            return
        self._sync()
        self._names[self._key(path)] = {child.name for child in path.iterdir() if child.is_file()}

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)
        if target.is_relative_to(self.root):
            self._durable[self._key(target)] = self._durable.pop(self._key(source), b"")

    def _sync(self) -> None:
        self.syncs += 1
        if self.fails:
            self.fails = False
            current_process().loop.seen["disk: failed"] += 1
            raise OSError(errno.EIO, "the disk failed")
        if self.ends_in is not None:
            self.ends_in -= 1
            if self.ends_in < 0:
                self.ends_in = None
                current_process().loop.seen["process: ended within a sync"] += 1
                current_process().end()

    def _key(self, path: Path) -> str:
        return str(path.absolute().relative_to(self.root.absolute()))

    # --- between two lives ---------------------------------------------------------------------------------------

    def survive(self, *, power: bool) -> None:
        """What the dead life left becomes the beginning of the next one, in a folder of its own, so that nothing that
        still holds the old files can touch it."""
        old, self._life = self.root, self._life + 1
        new = self._home / str(self._life)
        shutil.copytree(old, new, ignore=shutil.ignore_patterns("*-shm"))
        self.root = new
        self.ends_in = None
        if power:
            self._lose_power()

    def wipe(self) -> None:
        """An empty disk in its place."""
        self._life += 1
        self.root = self._home / str(self._life)
        self.root.mkdir()
        self._durable, self._names, self._log_synced_bytes = {}, {}, 0
        self.clean()

    def clean(self) -> None:
        """Remove the folders of former lives."""
        for folder in self._home.iterdir():
            if folder != self.root:
                shutil.rmtree(folder)

    def _lose_power(self) -> None:
        journal = self.root / "journal"
        present = {path.name for path in journal.iterdir()} if journal.exists() else set()
        kept_names = self._names.get("journal", set())
        for name in sorted(present | kept_names):
            path, durable = journal / name, self._durable.get(f"journal/{name}", b"")
            if name not in present:
                if self._rng.random() < 0.5:
                    path.write_bytes(durable)
            elif name not in kept_names and self._rng.random() < 0.5:
                path.unlink()
            else:
                path.write_bytes(self._tear(durable, path.read_bytes()))
        self._tear_database()

    def _tear(self, durable: bytes, written: bytes) -> bytes:
        if durable == written:
            return written
        rng = self._rng
        self.torn += 1
        size = (
            max(len(durable), len(written))
            if len(written) >= len(durable)
            else rng.choice((len(durable), len(written)))
        )
        if len(written) > len(durable):
            size = rng.choice((len(durable), len(written), rng.randint(len(durable), len(written))))
        torn = bytearray(size)
        chance = rng.choice((0.0, 0.5, 0.9))
        for start in range(0, size, SECTOR_BYTES):
            source = written if rng.random() < chance else durable
            part = source[start : min(start + SECTOR_BYTES, size)]
            torn[start : start + len(part)] = part
        return bytes(torn)

    def _tear_database(self) -> None:
        log = self.root / f"{_DATABASE}-wal"
        if log.exists():
            size = log.stat().st_size
            lost_from = self._rng.choice((size, self._rng.randint(min(self._log_synced_bytes, size), size)))
            os.truncate(log, lost_from)


class SimulatedKernel(Kernel):
    """Sends each sync to the disk of the process that asks."""

    def sync_data(self, fd: int, path: Path) -> None:
        _disk().sync_data(path)

    def sync_directory(self, fd: int, path: Path) -> None:
        _disk().sync_directory(path)

    def replace(self, source: Path, target: Path) -> None:
        _disk().replace(source, target)

    def end_process(self, message: str) -> NoReturn:
        current_process().end()


class SimulatedJournal(Journal):
    """The real journal on a disk that may be full. ``touched``: log or term may have changed since somebody looked."""

    touched = True

    def add(self, command: bytes, idx: int, term: int) -> None:
        self.touched = True
        super().add(command, idx, term)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        self.touched = True
        super().deleteEntriesFrom(entryFrom)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self.touched = True
        super().setCurrentTerm(term, votedForNodeId)

    def write(self, flush: Flush) -> None:
        disk = _disk()
        if disk.full:
            current_process().loop.seen["disk: full for the log"] += 1
            raise OSError(errno.ENOSPC, "no space left on the simulated disk")
        super().write(flush)


def _disk() -> Disk:
    disk = current_process().disk
    assert isinstance(disk, Disk)
    return disk
