"""What the broken nodes have in common: a kernel that does not sync some things, and says that it did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from raftfs import fsync
from raftfs_cli.main import main


class Forgetful(fsync.Kernel):
    """``data`` and ``directory``: whether the sync of a path is skipped."""

    def __init__(self, *, data: Callable[[Path], bool] | None = None, directory: Callable[[Path], bool] | None = None):
        self._data, self._directory = data, directory

    def sync_data(self, fd: int, path: Path) -> None:
        if self._data is None or not self._data(path):
            super().sync_data(fd, path)

    def sync_directory(self, fd: int, path: Path) -> None:
        if self._directory is None or not self._directory(path):
            super().sync_directory(fd, path)


def run(kernel: fsync.Kernel) -> None:
    """The node, on this kernel."""
    with fsync.simulated(kernel):
        main()
