"""A node's disk: real files in a directory, and a memory of what of them is durable (``names.py``).

Who makes something durable calls ``raftfs.fsync``, which asks the :class:`SimulatedKernel`, which remembers the file or
the directory as it is at that instant. When the machine loses power, each file goes back to what was remembered, except
that any of the sectors that were written since may have reached the disk; a name whose directory was not synced since
it came, went or changed may be as it was. When only the process dies, the kernel still holds everything that was
written. SQLite syncs by itself, unseen from here: its database file changes only at checkpoints, and of its write-ahead
log a power loss leaves any beginning that is not shorter than at the last checkpoint.
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
from raftfs.testing.simulation.names import ForgetsNames, Names

SECTOR_BYTES = 64  # what a torn write loses or keeps as one; smaller than real ones, as the entries are
_DATABASE = "state.db"
_SUMS = "state.db-sums"
_COPIES = "snapshot-out"  # for others, deleted at each start


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
        self.forgets_names: ForgetsNames = lambda _path: False
        """names that syncs of their directories leave out: a planted fault"""
        self.syncs = 0
        self.torn = 0
        """files that held what was not durable when the power went"""
        self._names = Names(self.root, root / "attic", lambda name: name.startswith(_DATABASE) and name != _SUMS)
        self._log_synced_bytes = 0

    # --- while the machine runs ----------------------------------------------------------------------------------

    def sync_data(self, path: Path) -> None:
        if not path.is_relative_to(self.root):
            return
        log = self.root / f"{_DATABASE}-wal"
        if path.name == _SUMS and log.exists():
            self._log_synced_bytes = log.stat().st_size  # SQLite synced it before it copied it into the database
        self._sync()
        if self.forgets is None or not path.name.endswith(self.forgets):
            self._names.sync_data(path)
        if path == log:
            self._log_synced_bytes = path.stat().st_size

    def sync_directory(self, path: Path) -> None:
        if not path.is_relative_to(self.root):
            return
        self._sync()
        self._names.sync_directory(path, self.forgets_names)

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

    # --- between two lives ---------------------------------------------------------------------------------------

    def survive(self, *, power: bool) -> None:
        """What the dead life left becomes the beginning of the next one, in a folder of its own, so that nothing that
        still holds the old files can touch it."""
        old, self._life = self.root, self._life + 1
        new = self._home / str(self._life)
        shutil.copytree(old, new, ignore=shutil.ignore_patterns("*-shm", _COPIES))
        self.root = new
        self._names.move(new, self._life)
        self.ends_in = None
        if power:
            self._names.lose_power(self._rng, self._tear)
            self._tear_database()

    def wipe(self) -> None:
        """An empty disk in its place."""
        self._life += 1
        self.root = self._home / str(self._life)
        self.root.mkdir()
        self._names.wipe(self.root, self._life)
        self._log_synced_bytes = 0
        self.clean()

    def clean(self) -> None:
        """Remove the folders of former lives."""
        for folder in self._home.iterdir():
            if folder.name != "attic" and folder != self.root:
                shutil.rmtree(folder)

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
