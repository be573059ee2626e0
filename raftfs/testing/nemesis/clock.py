"""Runs a server whose wall clock is as wrong as a file says: libfaketime (Debian's package ``faketime``) before it.

The file holds seconds to add, as ``+3600``, and is read at every look at the clock. Spans of time (CLOCK_MONOTONIC) go
on as ever, as they do when the clock of a machine is set, and files keep their real times.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_TOLERANCE_S: Final = 10.0
"""An answer may have been under way for a while."""

_OPTIONS: Final = (
    "FAKETIME_NO_CACHE=1",
    "FAKETIME_DONT_FAKE_MONOTONIC=1",
    # Otherwise libfaketime takes today's glibc for one with a bug that it works around, and every wait of one of
    # Python's threads for another (the interpreter's lock) lasts milliseconds too long.
    "FAKETIME_FORCE_MONOTONIC_FIX=0",
    "NO_FAKE_STAT=1",
)


def before(library: Path, file: Path) -> list[str]:
    """What to write before a command inside a namespace of its own (``ip netns exec``) so that its clock is the file's.

    libfaketime leaves two files in /dev/shm when its process is killed; so that is one of the process's own.
    """
    own_memory = 'mount -t tmpfs -o size=1m faketime /dev/shm && exec "$@"'
    options = [f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={file}", *_OPTIONS]
    return ["sh", "-c", own_memory, "sh", "env", *options]


def can_be_seen(ahead_s: float) -> bool:
    """Whether a clock that is ahead by that much (or behind) can be told from a right one."""
    return abs(ahead_s) > 2 * _TOLERANCE_S


def seems(headers: Mapping[str, str], ahead_s: float) -> bool:
    """Whether an answer that has come just now shows a server whose clock is ahead by about that much."""
    told_s = email.utils.parsedate_to_datetime(headers["Date"]).timestamp()
    return abs(told_s - time.time() - ahead_s) < _TOLERANCE_S
