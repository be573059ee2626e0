"""Where targets put their files, and what a target gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Check = Callable[[bytes], None]
"""Raises AssertionError if the parser did something with these bytes that it must not do."""


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
