"""Progress of ``put`` and ``get``: a bar on a terminal, one line for each finished file in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from raftfs_cli import output

if TYPE_CHECKING:
    from raftfs.client.progress import Progress, Report


class Show(Protocol):
    """Shows how far all transfers of a command are."""

    def __call__(self, path: str, done_bytes: int, total_bytes: int | None, files: str) -> None: ...


class Meter:
    """Adds up the transfers of one command. ``total`` is how many sources it has."""

    def __init__(self, verb: str, show: Show | None, lines: bool) -> None:
        self._verb = verb
        self._show = show
        self._lines = lines
        self._transfers: dict[int, Progress] = {}
        self._started_s = time.monotonic()

    def transfer(self) -> Report:
        """A callback for one more transfer."""
        number = len(self._transfers)
        before = 0

        def report(now: Progress) -> None:
            nonlocal before
            self._transfers[number] = now
            if self._lines and now.done_files > before:
                output.emit(f"{self._verb} {now.path}")
            before = now.done_files
            self._refresh(now.path)

        self._transfers[number] = _nothing()
        return report

    def _refresh(self, path: str) -> None:
        if self._show is None:
            return
        all_ = self._transfers.values()
        totals = [each.total_bytes for each in all_]
        total = None if None in totals else sum(filter(None, totals))
        files = sum(each.total_files for each in all_)
        self._show(
            path,
            sum(each.done_bytes for each in all_),
            total,
            f" {sum(each.done_files for each in all_)}/{files}" if files > 1 else "",
        )

    def summary(self, files: int, size: int) -> str:
        """The last line: how much, how long, how fast."""
        seconds = max(time.monotonic() - self._started_s, 1e-3)
        rate = output.human_bytes(int(size / seconds))
        counted = "1 file" if files == 1 else f"{files} files"
        return f"{counted}, {output.human_bytes(size)} in {seconds:.1f} s ({rate}/s)"


def _nothing() -> Progress:
    from raftfs.client.progress import Progress

    return Progress("", 0, None, 0, 0)


@contextmanager
def metering(verb: str, *, quiet: bool, to_stdout: bool = False) -> Iterator[Meter]:
    """A meter for one command. ``to_stdout``: standard output carries the file itself, so no lines go there."""
    lines = not quiet and not to_stdout and not sys.stdout.isatty()
    if quiet or not sys.stderr.isatty():
        yield Meter(verb, None, lines)
        return
    with _bar() as show:
        yield Meter(verb, show, lines)


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    # Without the last option, rich sends what is printed to standard output meanwhile to the bar's terminal.
    with Progress(*columns, TimeRemainingColumn(), console=console, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)

        def show(path: str, done_bytes: int, total_bytes: int | None, files: str) -> None:
            name = escape(output.printable(path.rsplit("/", 1)[-1][-40:]))
            bar.update(task, description=f"{name}{files}", completed=done_bytes, total=total_bytes)

        yield show
