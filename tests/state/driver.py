"""Drives a state machine the way a node does: one entry after the other, and a reader beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from raftfs.state import (
    ChunkRef,
    Code,
    Command,
    CommitFile,
    Envelope,
    Page,
    Reader,
    Result,
    Stat,
    StateMachine,
    encode,
)
from raftfs.versions import FORMAT_VERSION

FINGERPRINT = b"a request"


def in_format(path: Path) -> StateMachine:
    """A machine whose new database begins with the newest format, not with an entry that says which."""
    return StateMachine(path, version=FORMAT_VERSION)


class Driver:
    """A machine and a reader on one file. ``do`` applies a command as an entry of its own."""

    def __init__(self, path: Path, open_machine: Callable[[Path], StateMachine] = in_format) -> None:
        self.path = path
        self._open_machine = open_machine
        self.machine = open_machine(path)
        self.reader = Reader(path)
        self.now_ms = 1_000

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.reader.close()
        self.machine.close()

    def reopen(self) -> None:
        self.close()
        self.machine = self._open_machine(self.path)
        self.reader = Reader(self.path)

    def entry(self, *envelopes: bytes) -> list[Result]:
        return self.machine.apply(self.machine.applied_index + 1, 1, envelopes)

    def do(
        self, command: Command, *, key: str | None = None, fingerprint: bytes = FINGERPRINT, at_ms: int | None = None
    ) -> Result:
        if at_ms is None:
            self.now_ms += 1
            at_ms = self.now_ms
        (result,) = self.entry(encode(Envelope(command, at_ms, key, fingerprint if key else b"")))
        return result

    def put(self, path: str, data: bytes = b"", **options: object) -> Result:
        command = CommitFile(path, len(data), data=data, **options)  # type: ignore[arg-type]
        return self.do(command)

    def refused(self, command: Command, code: Code) -> Result:
        """Apply a command that must be refused with ``code`` and change nothing."""
        before = self.everything()
        result = self.do(command)
        assert result.code is code, result
        assert result.detail
        assert result.revision == self.machine.revision
        assert self.everything() == before
        return result

    def everything(self) -> tuple[object, ...]:
        """What a command might change, the applied index and hash aside."""
        return (
            self.machine.revision,
            self.all_entries("/"),
            self.reader.chunk_changes(0, 1_000),
            [self.reader.upload(upload_id) for upload_id in range(1, 50)],
        )

    def stat(self, path: str, revision: int | None = None) -> Stat:
        found = self.reader.stat(path, revision)
        assert found is not None, path
        return found

    def read(self, path: str, revision: int | None = None) -> bytes | list[ChunkRef]:
        found = self.reader.open(path, revision)
        assert found is not None, path
        return found.chunks if found.data is None else found.data

    def pages(self, path: str, *, limit: int, **query: object) -> list[Page]:
        page = self.reader.list(path, limit=limit, **query)  # type: ignore[arg-type]
        pages = [page]
        query.pop("revision", None)
        while page.next is not None:
            page = self.reader.list(path, limit=limit, cursor=page.next, **query)  # type: ignore[arg-type]
            pages.append(page)
        return pages

    def all_entries(self, path: str, *, limit: int = 1_000, **query: object) -> list[Stat]:
        query = {"recursive": True, **query}
        return [stat for page in self.pages(path, limit=limit, **query) for stat in page.entries]

    def names(self, path: str, **query: object) -> list[str]:
        return [stat.path for stat in self.all_entries(path, **query)]


def chunk(number: int, length: int = 100) -> ChunkRef:
    return ChunkRef(number.to_bytes(32, "big"), length)
