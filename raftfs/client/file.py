"""Open files of the blocking client: Python's own buffered and text files over the asynchronous ones.

``close`` of a written file commits it. A ``with`` that is left by an exception discards it, and so does a file object
that is forgotten without ``close``: what is half-written must not appear because of a traceback.
"""

from __future__ import annotations

import io
import os
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any

from raftfs import limits
from raftfs.client.aiofile import AsyncReader, AsyncWriter
from raftfs.client.loopthread import LoopThread
from raftfs.models import Entry

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class RawReader(io.RawIOBase):
    """Seekable; sees one version of the file."""

    def __init__(self, thread: LoopThread, reader: AsyncReader, name: str) -> None:
        super().__init__()
        self._thread = thread
        self._reader = reader
        self.name = name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._check_open()
        view = memoryview(buffer).cast("B")
        part = self._thread.run(self._reader.read_some(len(view)))
        view[: len(part)] = part
        return len(part)

    def readall(self) -> bytes:
        self._check_open()
        return self._thread.run(self._reader.read())

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check_open()
        return self._thread.run(self._reader.seek(offset, whence))

    def tell(self) -> int:
        self._check_open()
        return self._reader.tell()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def close(self) -> None:
        if not self.closed:
            # Not waited for: this may run in the garbage collector, on any thread.
            self._thread.post(self._reader.close())
        super().close()


class RawWriter(io.RawIOBase):
    """Not seekable. ``close`` commits, ``abort`` discards."""

    def __init__(self, thread: LoopThread, writer: AsyncWriter, name: str) -> None:
        super().__init__()
        self._thread = thread
        self._writer = writer
        self.name = name

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._thread.run(self._writer.write(bytes(data)))

    def tell(self) -> int:
        return self._writer.tell()

    @property
    def entry(self) -> Entry | None:
        return self._writer.entry

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._thread.run(self._writer.close())
        finally:
            super().close()

    def abort(self, *, wait: bool = True) -> None:
        """Discard what was written."""
        if self.closed:
            return
        super().close()
        if wait:
            self._thread.run(self._writer.abort())
        else:
            self._thread.post(self._writer.abort())

    def __del__(self) -> None:
        _forget(self, self)


def _forget(file: io.IOBase, raw: Any) -> None:
    """What becomes of a writer that nobody closed: it is discarded, with a warning."""
    if isinstance(raw, RawWriter) and not raw.closed:
        raw.abort(wait=False)
        warnings.warn(f"{raw.name} was never closed and is discarded", ResourceWarning, stacklevel=3, source=file)


class WritableFile(io.BufferedWriter):
    """A file of the store opened with "wb" or "xb". Use ``with``; closing it makes it visible."""

    def __init__(self, raw: RawWriter) -> None:
        super().__init__(raw, limits.CLIENT_BLOCK_BYTES)
        self._raw = raw

    @property
    def entry(self) -> Entry | None:
        """What became visible, once closed."""
        return self._raw.entry

    def close(self) -> None:
        if self.closed:
            return
        try:
            self.flush()
        except BaseException:
            self.abort()  # not all of it was taken: committing the rest would be a truncated file
            raise
        super().close()

    def abort(self) -> None:
        """Discard what was written: nothing becomes visible."""
        self._raw.abort()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is not None:
            self.abort()
        self.close()

    def __del__(self) -> None:
        _forget(self, getattr(self, "_raw", None))


class WritableTextFile(io.TextIOWrapper):
    """A file of the store opened with "w" or "x". Use ``with``; closing it makes it visible."""

    def __init__(self, file: WritableFile, encoding: str, errors: str, newline: str | None) -> None:
        super().__init__(file, encoding=encoding, errors=errors, newline=newline)
        self._file = file

    @property
    def entry(self) -> Entry | None:
        """What became visible, once closed."""
        return self._file.entry

    def close(self) -> None:
        if self.closed:
            return
        try:
            self.flush()
        except BaseException:
            self.abort()
            raise
        super().close()

    def abort(self) -> None:
        """Discard what was written: nothing becomes visible."""
        self._file.abort()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is not None:
            self.abort()
        self.close()

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        _forget(self, getattr(file, "_raw", None))


def open_binary(thread: LoopThread, reader: AsyncReader, name: str) -> io.BufferedReader:
    """A buffered file over a reader."""
    return io.BufferedReader(RawReader(thread, reader, name), limits.CLIENT_BLOCK_BYTES)
