"""Processes that are remembered on disk: found again, never mistaken, gone when they are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftfs.testing.processes import Process, raftfs_command, raftfs_environment, stop_all

FOREVER = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", FOREVER]) as child:
        yield child
        child.kill()


def _find(child: subprocess.Popen[bytes]) -> Process:
    process = Process.find(child.pid)
    assert process is not None
    return process


def test_a_process_is_found_again_through_its_file(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    process = _find(sleeper)
    process.save(tmp_path / "pid")
    assert Process.load(tmp_path / "pid") == process
    assert process.alive
    assert process.rss_bytes() > 1024 * 1024


@pytest.mark.parametrize("text", ["", "123", '{"pid": 1}', "[1, 2]", '{"pid": "x", "started": ""}'])
def test_a_damaged_pid_file_is_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert Process.load(tmp_path / "pid") is None


def test_a_recycled_pid_is_not_the_process_and_is_not_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    """The same pid with another start is somebody else."""
    former = Process(sleeper.pid, "some-boot:1")
    assert not former.alive
    assert not former.send(signal.SIGKILL)
    stop_all([former], timeout_s=0.1)
    assert _find(sleeper).alive


def test_the_remains_of_an_ended_child_do_not_count_as_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.returncode = 0  # nobody waits for it, so it stays a zombie
    while Process.find(child.pid) is not None:
        time.sleep(0.01)
    assert Path(f"/proc/{child.pid}").exists()
    os.waitpid(child.pid, 0)


def test_a_suspended_process_is_seen_as_such_and_stopped_all_the_same(sleeper: subprocess.Popen[bytes]) -> None:
    process = _find(sleeper)
    process.send(signal.SIGSTOP)
    while not process.stopped:
        time.sleep(0.01)
    assert process.alive
    stop_all([process], timeout_s=10)
    assert not process.alive


def test_who_does_not_end_when_asked_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"deaf\n"
        process = _find(child)
        stop_all([process], timeout_s=0.2)
        assert not process.alive


def test_waiting_for_one_that_stays_ends(sleeper: subprocess.Popen[bytes]) -> None:
    assert not _find(sleeper).wait_gone(timeout_s=0.05)


def test_memory_of_an_ended_process_is_an_error(sleeper: subprocess.Popen[bytes]) -> None:
    process = _find(sleeper)
    process.send(signal.SIGKILL)
    process.wait_gone(timeout_s=10)
    with pytest.raises(ProcessLookupError):
        process.rss_bytes()


def test_the_command_runs_wherever_it_is_started(tmp_path: Path) -> None:
    """Neither an installation nor the current directory is needed to find it, and no file there is imported."""
    (tmp_path / "raftfs.py").write_text("raise SystemExit('imported from the current directory')")
    done = subprocess.run(
        [*raftfs_command(), "--version"],
        cwd=tmp_path,
        env=raftfs_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("raftfs ")
