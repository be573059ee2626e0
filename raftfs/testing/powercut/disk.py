"""A disk whose power can be cut, as the one who cuts it sees it: a mount point, and a process for each life."""

from __future__ import annotations

import ctypes.util
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from raftfs.testing.nemesis.machine import CannotRun, call
from raftfs.testing.processes import raftfs_environment

ANSWER_S_MAX: Final = 60.0


def check_fuse() -> None:
    """Raises CannotRun, saying what is missing and how to get it."""
    if os.geteuid() != 0:
        raise CannotRun("mounting needs root: run it with sudo")
    if importlib.util.find_spec("mfusepy") is None:
        raise CannotRun("no mfusepy here; pip install mfusepy (it is in the dependency group `test`)")
    if ctypes.util.find_library("fuse3") is None:
        raise CannotRun("no libfuse3 here; on Debian: apt install fuse3")
    if not Path("/dev/fuse").exists():
        raise CannotRun("no /dev/fuse here: this kernel (or this container) has no FUSE")


class PowerDisk:
    """``folder`` is where it is mounted while it has power; ``trees`` gets a folder for what each life began with.

    Life: ``power_on`` · (``cut``, or one that ``cut_after`` has planned) · kill the processes that use it ·
    ``power_off`` · ``power_on`` ... ``close``. Between the cut and ``power_off`` whoever uses it waits.
    """

    def __init__(self, folder: Path, trees: Path, seed: str) -> None:
        self.folder, self._trees, self._seed = folder, trees, seed
        self.life = 0
        self.counts: dict[str, int] = {}
        """of the last life: changes, syncs, files and names whose fate was open when it ended"""
        folder.mkdir(parents=True)
        self.tree.mkdir(parents=True)
        self._process: subprocess.Popen[str] | None = None
        self._was_cut = threading.Event()

    @property
    def tree(self) -> Path:
        """What the present life began with."""
        return self._trees / f"{self.life:04d}"

    @property
    def is_on(self) -> bool:
        """Whether it is mounted, with or without power."""
        return self._process is not None

    @property
    def was_cut(self) -> bool:
        """Whether the power of the present life is gone."""
        return self._was_cut.is_set()

    def wait_cut(self, timeout_s: float) -> bool:
        return self._was_cut.wait(timeout_s)

    def power_on(self) -> None:
        """Raises CannotRun if it cannot be mounted."""
        self._was_cut.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "raftfs.testing.powercut.mount", str(self.tree), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=raftfs_environment(),
            process_group=0,
        )
        self._answers: list[dict[str, Any]] = []
        self._answered = threading.Condition()
        self._ended = False
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        self._wait("ready")

    def cut(self) -> None:
        """Cut the power now."""
        if not self.was_cut:
            self._tell("cut")
            self._wait("cut")

    def cut_after(self, changes: int) -> None:
        """Let the power go before so many more changes; ``was_cut`` tells when it has."""
        self._tell(f"cut-after {changes}")
        self._wait("armed")

    def power_off(self) -> None:
        """Lose what is not durable, and unmount. The disk can be powered on again."""
        self.cut()
        after = self._trees / f"{self.life + 1:04d}"
        self._tell(f"survive {after} {self._seed}/{self.life}")
        answer = self._wait("survived")
        del answer["survived"]
        self.counts = answer
        self._end()
        self.life += 1

    def forget_lives(self, keep: int) -> None:
        """Remove what all but the last ``keep`` lives began with."""
        for folder in sorted(self._trees.iterdir())[:-keep]:
            shutil.rmtree(folder)

    def close(self) -> None:
        """Unmount, whatever it holds. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _end(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.wait(ANSWER_S_MAX)
        self._listener.join(ANSWER_S_MAX)
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None
        call("umount", "--lazy", str(self.folder), check=False)

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise CannotRun(f"the file system of {self.folder} has ended") from None

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            with self._answered:
                if "cut" in answer:
                    self._was_cut.set()
                self._answers.append(answer)
                self._answered.notify_all()
        with self._answered:
            self._ended = True
            self._answered.notify_all()

    def _wait(self, key: str) -> dict[str, Any]:
        """The first answer that has this key."""
        with self._answered:
            done = self._answered.wait_for(
                lambda: self._ended or any(key in one for one in self._answers), ANSWER_S_MAX
            )
            found = next((one for one in self._answers if key in one), None)
            if not done or found is None:
                raise CannotRun(f"the file system of {self.folder} gives no answer ({key}); see what it printed")
            self._answers = [one for one in self._answers if one is not found]
            return dict(found)
