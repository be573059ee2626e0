"""Progress of transfers: a callback, or a bar on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is. ``path`` moved last; ``total_bytes`` is None while it is not known."""

    path: str
    done_bytes: int
    total_bytes: int | None
    done_files: int
    total_files: int


Report: TypeAlias = Callable[[Progress], object]
"""Called in the client's event loop (a thread of its own in ``Client``), often: it should return at once."""


class Tally:
    """Adds up what the files of one transfer did. A file that starts over gives its bytes back."""

    def __init__(self, report: Report | None, total_bytes: int | None, total_files: int) -> None:
        self._report = report
        self._files: dict[str, int] = {}
        self._now = Progress("", 0, total_bytes, 0, total_files)

    def announce(self, total_bytes: int) -> None:
        """The size of a single file, once it is known."""
        if self._now.total_bytes is None:
            self._now = replace(self._now, total_bytes=total_bytes)

    def file(self, path: str) -> Callable[[int], None]:
        """A callback for one file; it takes the bytes of this file that moved so far."""

        def moved(done: int) -> None:
            step_bytes = done - self._files.get(path, 0)
            self._files[path] = done
            self._add(path, step_bytes, 0)

        return moved

    def finish(self, path: str) -> None:
        """One file is complete."""
        self._files.pop(path, None)
        self._add(path, 0, 1)

    def _add(self, path: str, step_bytes: int, step_files: int) -> None:
        now = self._now
        done_files = now.done_files + step_files
        self._now = replace(now, path=path, done_bytes=now.done_bytes + step_bytes, done_files=done_files)
        if self._report is not None:
            self._report(self._now)


@contextmanager
def reporting(progress: bool | Report | None, title: str) -> Iterator[Report | None]:
    """A callback for the ``progress`` argument of a call: True shows a bar if standard error is a terminal."""
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield None


@contextmanager
def _bar(title: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)

        def report(now: Progress) -> None:
            files = f" {now.done_files}/{now.total_files}" if now.total_files > 1 else ""
            bar.update(task, description=title + files, completed=now.done_bytes, total=now.total_bytes)

        yield report
