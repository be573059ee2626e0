"""Runs a server whose wall clock is as wrong as a file says: ``python clock.py FILE PROGRAM ARGUMENTS...``.

FILE holds seconds to add, read again and again; PROGRAM is a module or a Python file. Only what Python reads as wall
clock is moved, which is all that a node has; spans of time (``time.monotonic``) go on as ever, as they do when the
clock of a machine is set. This file is run by its path, before anything of raftfs is imported, and imports none of it.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

_READ_AGAIN_S = 0.1


def shifted(path: Path, wall: Callable[[], float], spans: Callable[[], float]) -> Callable[[], float]:
    """A wall clock that is off by what ``path`` says; what is no number there is taken as the last one."""
    ahead_s, read_at_s = 0.0, float("-inf")

    def now() -> float:
        nonlocal ahead_s, read_at_s
        if spans() - read_at_s > _READ_AGAIN_S:
            read_at_s = spans()
            with contextlib.suppress(OSError, ValueError):
                ahead_s = float(path.read_text(encoding="ascii"))
        return wall() + ahead_s

    return now


def _main() -> None:
    clock, program = sys.argv[1:3]
    now = shifted(Path(clock), time.time, time.monotonic)
    time.time = now
    time.time_ns = lambda: int(now() * 1e9)
    sys.argv = sys.argv[2:]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
