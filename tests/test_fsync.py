"""Directories that are made to last, and the end of a process whose fsync failed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from raftfs import fsync
from raftfs.config import MemberConfig, NodeConfig
from raftfs.service.node import Node
from raftfs.state.schema import translate
from raftfs.testing.fakes import WatchedKernel
from raftfs.testing.ports import free_ports


def watched(seen: list[tuple[str, Path]]) -> WatchedKernel:
    return WatchedKernel(lambda what, path: seen.append((what, path)))


def test_every_new_directory_has_its_name_synced(tmp_path: Path) -> None:
    seen: list[tuple[str, Path]] = []
    with fsync.simulated(watched(seen)):
        fsync.make_directory(tmp_path / "a" / "b" / "c")
        assert seen == [("directory", tmp_path), ("directory", tmp_path / "a"), ("directory", tmp_path / "a" / "b")]
        fsync.make_directory(tmp_path / "a" / "b")
    assert seen[-1] == ("directory", tmp_path / "a"), "whoever made it may have died before"
    with pytest.raises(OSError):
        fsync.make_directory(Path("/proc/raftfs"))


async def test_a_node_makes_its_data_directory_to_last(tmp_path: Path) -> None:
    """It was made and never synced: a power cut could take it away with everything that was synced in it."""
    seen: list[tuple[str, Path]] = []
    http, peer = free_ports(2)
    members = [MemberConfig(id="n1", peer=f"127.0.0.1:{peer}", url=f"http://127.0.0.1:{http}")]
    config = NodeConfig(id="n1", cluster_id="test", data_dir=tmp_path / "new" / "n1", members=members)
    with fsync.simulated(watched(seen)):
        async with Node(config):
            pass
    assert seen[:2] == [("directory", tmp_path), ("directory", tmp_path / "new")]
    term = seen.index(("replace", config.data_dir / "journal" / "term"))
    assert term < seen.index(("replace", config.data_dir / "node.json")), "who has a name has a file for its votes"


def test_a_failed_fsync_ends_the_process_with_its_own_code() -> None:
    """A pipe cannot be synced. ``tests/system/test_failed_fsync.py`` does the same to a node."""
    code = "import os; from raftfs import fsync; fsync.sync_data(os.pipe()[1], 'journal/1.segment'); print('went on')"
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (fsync.FSYNC_FAILED_EXIT, "")
    assert "fsync of journal/1.segment failed: [Errno 22]" in done.stderr


class Ended(BaseException):
    """What stands for the end of the process."""


class EndingKernel(fsync.Kernel):
    def end_process(self, message: str) -> NoReturn:
        raise Ended(message)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC])
def test_an_fsync_that_sqlite_saw_fail_ends_the_process_too(code: int) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    with fsync.simulated(EndingKernel()), pytest.raises(Ended, match=r"data/state\.db failed: disk"):
        translate(Path("data/state.db"), error)
