"""The one module that makes bytes durable.

After a failed fsync the kernel may have dropped the dirty pages while marking them clean, so a retry can report
success for data that is gone ("Can Applications Recover from fsync Failures?", USENIX ATC 2020). raftfs therefore
never retries: the process ends at once with exit code ``FSYNC_FAILED_EXIT`` and recovers from its log and peers.
A full disk is found out by the write before it, which raises and can be answered.
"""

from __future__ import annotations

import bisect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

FSYNC_FAILED_EXIT: Final = 74  # sysexits.h EX_IOERR; the service manager must not restart on it in a tight loop


TIMES_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the classes in which ``Times`` counts."""


class Times:
    """How long the syncs of this process took, by classes, once somebody has brought a clock. Any thread may add; what
    is read fits together."""

    def __init__(self) -> None:
        self.clock: Callable[[], float] | None = None
        self._lock = threading.Lock()
        self._counts = [0] * (len(TIMES_S) + 1)
        self._sum_s = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Count the time spent inside, also when it ends with an error."""
        if (clock := self.clock) is None:
            yield
            return
        began_s = clock()
        try:
            yield
        finally:
            took_s = clock() - began_s
            with self._lock:
                self._counts[bisect.bisect_left(TIMES_S, took_s)] += 1
                self._sum_s += took_s

    def read(self) -> tuple[list[int], float]:
        """How many syncs took up to each of TIMES_S, and longer than all of them, and the sum of their times."""
        with self._lock:
            return list(self._counts), self._sum_s


times = Times()


class Kernel:
    """What this module asks of the system. The simulator puts a disk of its own in its place, with ``simulated``."""

    def sync_data(self, fd: int, path: Path) -> None:
        with times.measured():
            os.fdatasync(fd)

    def sync_directory(self, fd: int, path: Path) -> None:
        with times.measured():
            os.fsync(fd)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def end_process(self, message: str) -> NoReturn:
        os.write(sys.stderr.fileno() if sys.stderr is not None else 2, message.encode())
        os._exit(FSYNC_FAILED_EXIT)


_kernel = Kernel()


@contextmanager
def simulated(kernel: Kernel) -> Iterator[None]:
    """Another kernel for the whole process, as long as the context lasts."""
    global _kernel
    original, _kernel = _kernel, kernel
    try:
        yield
    finally:
        _kernel = original


def sync_data(fd: int, name: str | Path) -> None:
    """Make the contents of an open file durable (fdatasync). Ends the process if the kernel reports failure."""
    try:
        _kernel.sync_data(fd, Path(name))
    except OSError as error:
        failed(name, error)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Ends the process if the kernel reports failure."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _kernel.sync_directory(fd, path)
    except OSError as error:
        failed(path, error)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of it, as one call may write less. Not durable yet. Raises OSError (a full disk)."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_durably(path: Path, data: bytes) -> None:
    """Replace a small file atomically and durably: temporary file, fsync, rename, fsync of the directory.

    Raises OSError if the bytes cannot be written (a full disk); the old file is then untouched.
    """
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, data)
        sync_data(fd, temporary)
    finally:
        os.close(fd)
    _kernel.replace(temporary, path)
    sync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory, and the missing ones above it, durably: a name is safe only when the directory that holds it is
    synced, whatever was synced below. One that is there already is made durable as well, as the process that made it
    may have died before. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode, exist_ok=True)
        sync_directory(folder.parent)
    if not missing:
        sync_directory(path.parent)


def failed(name: str | Path, error: Exception) -> NoReturn:
    """End the process, as an fsync of ``name`` failed: for libraries that sync by themselves (SQLite)."""
    message = f"raftfs: fsync of {name} failed: {error}. Stopping now: what was written may not be on the disk.\n"
    _kernel.end_process(message)
