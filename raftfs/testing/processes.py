"""Server processes on this machine: start one, find it again from another process, signal it, never hit a stranger.

A process is remembered on disk as its pid together with the moment it started, read from /proc (Linux). A pid that
the kernel has given to somebody else since then has another start and counts as gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import raftfs.errors

_ROOT = Path(raftfs.errors.__file__).resolve().parents[1]
"""The folder that holds the package ``raftfs``: site-packages, or the top of a source tree."""

_POLL_S = 0.01


def raftfs_command() -> list[str]:
    """The ``raftfs`` command, run by this very interpreter.

    ``-P`` keeps the current directory, whatever lies in it, off the import path.
    """
    return [sys.executable, "-P", "-m", "raftfs_cli"]


def raftfs_environment() -> dict[str, str]:
    """Environment in which a child imports the same ``raftfs`` as this process, however this one found it."""
    environment = dict(os.environ)
    if str(_ROOT) not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{_ROOT}{os.pathsep}{before}" if before else str(_ROOT)
    return environment


@dataclass(frozen=True)
class Process:
    """A process of this machine, told apart from any later one with the same pid by when it started."""

    pid: int
    started: str

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """The live process with this pid; None if there is none (or only its remains, waiting to be reaped)."""
        stat = _stat(pid)
        return None if stat is None or stat.ended else cls(pid, stat.started)

    @property
    def alive(self) -> bool:
        return self.find(self.pid) == self

    @property
    def stopped(self) -> bool:
        """Whether it is suspended by SIGSTOP."""
        stat = _stat(self.pid)
        return stat is not None and stat.state == "T" and stat.started == self.started

    def send(self, number: int) -> bool:
        """Send a signal. False if the process is gone already."""
        if not self.alive:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until it has ended (reaping it if it is a child of ours). False if it still runs after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while self.alive:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return True

    def rss_bytes(self) -> int:
        """Resident memory now, in bytes. Raises ProcessLookupError if it is gone."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            pages = 0
        if not self.alive:
            raise ProcessLookupError(f"process {self.pid} has ended")
        return pages * os.sysconf("SC_PAGE_SIZE")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"pid": self.pid, "started": self.started}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Process | None:
        """The process noted in a pid file, alive or not; None if there is no (readable) note."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(values["pid"]), str(values["started"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None


class _Stat(NamedTuple):
    """``started``: boot and clock ticks since."""

    state: str
    started: str
    threads: int

    @property
    def ended(self) -> bool:
        # The main thread is a zombie first; as long as others are still on their way out, ports and locks are held.
        return self.state in "ZX" and self.threads <= 1


def _stat(pid: int) -> _Stat | None:
    """What the kernel says of a pid; None if nobody has it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may itself hold anything, so count from its end.
    fields = text[text.rindex(")") + 2 :].split()
    return _Stat(state=fields[0], started=f"{_boot()}:{fields[19]}", threads=int(fields[17]))


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Leash:
    """A pipe whose end tells children that their parent is no more, however it died.

    The children read the pipe as their standard input (``--exit-with-stdin``); this process alone holds the other
    end. Linux's parent-death signal would do less: it fires when the *thread* that started the child ends.
    """

    def __init__(self) -> None:
        self.child_end, self._our_end = os.pipe()

    def close(self) -> None:
        for end in (self.child_end, self._our_end):
            with contextlib.suppress(OSError):
                os.close(end)


def spawn(
    arguments: Sequence[str],
    *,
    log: Path,
    leash: Leash | None,
    program: Sequence[str] | None = None,
) -> Process:
    """Start ``raftfs ARGUMENTS`` with its output appended to ``log``; on a leash, or (None) on its own for good.

    ``program``: what to start in place of ``raftfs``; it has to become the server itself (``exec``), not its parent.

    A leashed child is in a process group of its own, in our session: Ctrl-C on the terminal does not reach it before
    we stop it in order, and if we die, the kernel wakes it even if it was suspended (it sends SIGHUP and SIGCONT to
    suspended groups that lose their parent).
    """
    command = [*(program or raftfs_command()), *arguments, *(["--exit-with-stdin"] if leash else [])]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=leash.child_end if leash else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=raftfs_environment(),
            cwd=log.parent,
            start_new_session=leash is None,
            process_group=None if leash is None else 0,
        )
    stat = _stat(child.pid)
    # Everybody, we too, goes by pid and start from here on, so the Popen object must not complain about being left.
    child.returncode = 0
    return Process(child.pid, stat.started if stat else "ended at once")


def stop_all(processes: Sequence[Process], timeout_s: float) -> None:
    """Ask all to stop at once (waking the suspended), then kill those that have not ended after ``timeout_s``."""
    for process in processes:
        process.send(signal.SIGTERM)
        process.send(signal.SIGCONT)
    deadline = time.monotonic() + timeout_s
    for process in processes:
        if not process.wait_gone(max(0.0, deadline - time.monotonic())):
            process.send(signal.SIGKILL)
            process.wait_gone(timeout_s)
