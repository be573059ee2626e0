"""What clients asked a file store to do, when, and what they were told: the input of the linearizability checker.

A history is a list of operations on one clock. An operation whose outcome its client never learned has no result and
no end: it may have taken effect at any time from its begin on, or never. A write that was refused without effect
(``outcome: not_applied``) is left out, so that its value can be explained by nothing. On disk a history is JSON, one
operation a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec

NEVER = math.inf
"""End of an operation whose outcome nobody knows."""


class _Call(msgspec.Struct, frozen=True, tag_field="do"):
    """Base of what can be asked for. ``value`` is a name for the bytes of one write, used by no other one."""


class Write(_Call, frozen=True, tag="write"):
    """Create or replace a file. Results: CREATED, REPLACED."""

    path: str
    value: str


class Create(_Call, frozen=True, tag="create"):
    """Create a file where nothing is. Results: CREATED, EXISTS."""

    path: str
    value: str


class Swap(_Call, frozen=True, tag="swap"):
    """Compare and set: replace the file if it still holds ``expected``. Results: REPLACED, MISMATCH."""

    path: str
    expected: str
    value: str


class Delete(_Call, frozen=True, tag="delete"):
    """Remove a file. Results: DELETED, MISSING."""

    path: str


class Rename(_Call, frozen=True, tag="rename"):
    """Move a file, onto another one only with ``replace``. Results: MOVED, MISSING (source), EXISTS (target)."""

    source: str
    target: str
    replace: bool = False


class Read(_Call, frozen=True, tag="read"):
    """Result: the value, or MISSING."""

    path: str


class Names(_Call, frozen=True, tag="list"):
    """List the files right below a directory, all in one page. Result: see :func:`listing`."""

    path: str


class Transaction(_Call, frozen=True, tag="transaction"):
    """All of ``then``, at once, if each path of ``when`` holds its value (None: nothing). Results: DONE, MISMATCH;
    MISMATCH as well if one of ``then`` cannot be done (a file to remove is missing, and the like)."""

    when: tuple[tuple[str, str | None], ...]
    then: tuple[Write | Create | Swap | Delete | Rename, ...]


Call = Write | Create | Swap | Delete | Rename | Read | Names | Transaction

CREATED, REPLACED, EXISTS, MISMATCH = "+created", "+replaced", "-exists", "-mismatch"
DELETED, MISSING, MOVED, DONE = "+deleted", "-missing", "+moved", "+done"


def listing(found: Iterable[tuple[str, str]]) -> str:
    """The result of a list that showed these (path, value)."""
    return " ".join(f"{path}={value}" for path, value in sorted(found))


class Operation(msgspec.Struct, frozen=True):
    """``result`` None: unknown, and ``end`` is NEVER then. ``begin`` and ``end`` in seconds on one clock.

    ``revision`` is the one that the answer carried, if it carried one. ``client`` and ``note`` are for people only.
    """

    call: Call
    result: str | None
    begin: float
    end: float
    client: str = ""
    revision: int | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        return self.result is not None

    @property
    def changed(self) -> bool:
        """Whether its client was told that it changed something."""
        return self.result is not None and self.result.startswith("+")

    def __str__(self) -> str:
        end = f"{self.end:.6f}" if self.known else "?"
        told = self.result if self.known else "unknown"
        revision = "" if self.revision is None else f" at revision {self.revision}"
        return f"[{self.begin:.6f}, {end}] {self.client}: {self.call} -> {told}{revision} {self.note}".rstrip()


class _Line(msgspec.Struct):
    """An operation on disk: JSON has no infinity, so an end that never came is null."""

    call: Call
    result: str | None
    begin: float
    end: float | None
    client: str = ""
    revision: int | None = None
    note: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Line).decode


def save(history: Iterable[Operation], path: Path) -> None:
    """Write a history, in the order of its begins, one JSON object a line."""
    with path.open("wb") as file:
        for one in sorted(history, key=lambda operation: operation.begin):
            end = one.end if one.known else None
            file.write(_encode(_Line(one.call, one.result, one.begin, end, one.client, one.revision, one.note)) + b"\n")


def load(path: Path) -> list[Operation]:
    """Read a history back. Raises msgspec.DecodeError for what is none."""
    return [_operation(_decode(line)) for line in path.read_bytes().splitlines()]


def _operation(line: _Line) -> Operation:
    end = NEVER if line.end is None else line.end
    return Operation(line.call, line.result, line.begin, end, line.client, line.revision, line.note)
