"""What a run takes from the machine, apart from processes: a claim on a name, small disks, outside programs.

Everything bears the name of its run (six hexadecimal digits), so that whoever comes later can tell what is left over:
a folder ``RUN`` (of the nemesis, below ``/run/raftfs-nemesis``) with a lock that is held as long as the tool lives, and
all that is mounted for the run below it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftfs.errors import RaftfsError

PROGRAM_S_MAX: Final = 20.0
DISK_BYTES: Final = 1024 * 1024 * 1024
_SLACK_BYTES: Final = 16 * 1024  # left on a disk that is filled, at least
_FILL_TRIES: Final = 12
_FAKETIME: Final = "faketime/libfaketimeMT.so.1"


@dataclass(frozen=True)
class Tool:
    """A tool whose runs take such things. ``root`` holds a folder for each run; the names of its namespaces begin with
    ``prefix``."""

    root: Path
    prefix: str


NEMESIS: Final = Tool(Path("/run/raftfs-nemesis"), "rfn")


class CannotRun(RaftfsError):
    """This machine (or this user) cannot do what the nemesis needs."""

    code = "cannot_run"
    title = "The nemesis cannot run here"


def call(*command: str, text: str | None = None, check: bool = True) -> str:
    """Run a program and return what it prints. Raises CannotRun with what it says if it fails or hangs."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PROGRAM_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRun(f"{' '.join(command)}: {error}") from error
    if check and done.returncode:
        raise CannotRun(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def check_machine() -> None:
    """Raises CannotRun, saying what is missing and how to get it."""
    if os.geteuid() != 0:
        raise CannotRun("network namespaces need root: run it with sudo")
    missing = [program for program in ("ip", "nft", "ss", "mount") if shutil.which(program) is None]
    if missing:
        raise CannotRun(f"no {' and no '.join(missing)} here; on Debian: apt install iproute2 nftables mount")
    faketime()


def faketime() -> Path:
    """Where libfaketime is. Raises CannotRun."""
    for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib"):
        for pattern in (_FAKETIME, f"*/{_FAKETIME}"):
            if found := sorted(Path(folder).glob(pattern)):
                return found[0]
    raise CannotRun("no libfaketime here; on Debian: apt install faketime")


class Claim:
    """The name of a run, ours until ``release`` or the end of this process."""

    def __init__(self, tool: Tool = NEMESIS) -> None:
        self.run = secrets.token_hex(3)
        self.folder = tool.root / self.run
        self.folder.mkdir(parents=True)
        self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def release(self) -> None:
        """Give it back. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Disk:
    """A small file system in memory, for the data of one node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        call("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", f"{NEMESIS.prefix}-disk", str(folder))

    def fill(self) -> None:
        """Leave it no room. The disk shrinks to what is on it, so no memory is spent."""
        for number in range(_FILL_TRIES):
            found = os.statvfs(self.folder)
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            with contextlib.suppress(CannotRun):  # more was written meanwhile
                return self._resize(used + (_SLACK_BYTES << number))
        raise CannotRun(f"the disk {self.folder} could not be filled")

    def free(self) -> None:
        """Give it its room back."""
        self._resize(DISK_BYTES)

    def wipe(self) -> None:
        """Remove all that is on it, as if it were a new one. Nobody may be using it."""
        for one in self.folder.iterdir():
            shutil.rmtree(one) if one.is_dir() else one.unlink()

    def _resize(self, size: int) -> None:
        call("mount", "-o", f"remount,size={size}", str(self.folder))


def clean_up(run: str | None = None, tool: Tool = NEMESIS) -> list[str]:
    """Remove all that a run left behind (default: all runs whose tool is no more). Returns the names of the runs."""
    found = {run} if run else _known_runs(tool)
    gone = [one for one in sorted(found) if run or not is_alive(one, tool)]
    for one in gone:
        for name in _namespaces(one, tool):
            for pid in call("ip", "netns", "pids", name, check=False).split():
                _kill(int(pid))
        for mount in _mounts(one, tool):
            call("umount", "--lazy", mount, check=False)
        for name in _namespaces(one, tool):
            call("ip", "netns", "del", name, check=False)
        shutil.rmtree(tool.root / one, ignore_errors=True)
    return gone


def _known_runs(tool: Tool) -> set[str]:
    names = call("ip", "netns", "list", check=False).split()
    runs = {match[1] for name in names if (match := re.fullmatch(rf"{tool.prefix}-([0-9a-f]{{6}})-\w+", name))}
    return runs | ({folder.name for folder in tool.root.iterdir()} if tool.root.exists() else set())


def _namespaces(run: str, tool: Tool) -> Sequence[str]:
    names = call("ip", "netns", "list", check=False).split()
    return [name for name in names if name.startswith(f"{tool.prefix}-{run}-")]


def _mounts(run: str, tool: Tool) -> Sequence[str]:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [mount for mount in mounts if mount.startswith(f"{tool.root}/{run}/")]


def is_alive(run: str, tool: Tool = NEMESIS) -> bool:
    """Whether the tool that claimed this run still runs."""
    try:
        lock = os.open(tool.root / run / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
