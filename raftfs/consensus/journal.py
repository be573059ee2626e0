"""The durable log: what PySyncObj calls its journal, with group commit and a separate, explicit durability step.

``add`` only remembers an entry. ``take`` hands all entries that wait to a writer, ``write`` (in a worker thread)
puts them on the disk and fsyncs once for all of them, and ``complete`` (back on the loop) raises ``durable_index``.
Nothing else says that an entry is durable, and whoever acknowledges, counts or applies an entry asks it.

Removing a conflicting suffix writes nothing: the next record simply has an index that was there before, and reading
takes the later one. Until that record is durable, a crash brings the old suffix back, which is a state that this log
legally had and in which nothing of the new one was acknowledged.

Memory: 12 bytes an entry, and the newest entries up to a limit, whatever their size; older ones are read back from
disk. The class is confined to one thread, except ``write``.
"""

from __future__ import annotations

import os
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, overload

from raftfs import fsync
from raftfs.consensus import segments
from raftfs.consensus.membership import CONFIGURATION
from raftfs.consensus.termfile import TermFile
from raftfs.errors import CorruptData
from raftfs.limits import JOURNAL_SEGMENT_BYTES, JOURNAL_TAIL_BYTES_MAX

_TAIL_ENTRY_BYTES: Final = 200
"""What an entry of the tail costs beside its bytes: the objects, and its places in a dictionary that has just grown."""


class EntryData:
    """An entry's bytes, read when needed. PySyncObj asks most entries for their length alone."""

    __slots__ = ("_index", "_journal", "_length")

    def __init__(self, journal: Journal, index: int, length: int) -> None:
        self._journal = journal
        self._index = index
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, item: slice) -> bytes:
        return bytes(self)[item]

    def __bytes__(self) -> bytes:
        return self._journal.data(self._index)


PyEntry = tuple[EntryData, int, int]
"""What PySyncObj expects an entry to be: (bytes, index, term)."""


class EntrySlice:
    """A lazy view of a run of entries; PySyncObj slices the whole tail of the log to look at its first element."""

    __slots__ = ("_first", "_journal", "_stop")

    def __init__(self, journal: Journal, first: int, stop: int) -> None:
        self._journal = journal
        self._first = first
        self._stop = max(first, stop)

    def __len__(self) -> int:
        return self._stop - self._first

    def __iter__(self) -> Iterator[PyEntry]:
        return (self._journal.py_entry(index) for index in range(self._first, self._stop))

    @overload
    def __getitem__(self, item: int) -> PyEntry: ...
    @overload
    def __getitem__(self, item: slice) -> EntrySlice: ...
    def __getitem__(self, item: int | slice) -> PyEntry | EntrySlice:
        run = range(self._first, self._stop)[item]
        if isinstance(run, int):
            return self._journal.py_entry(run)
        return EntrySlice(self._journal, run.start, run.stop)


@dataclass(slots=True)
class Flush:
    """One group commit: the bytes for each segment, and the last index that is durable when it is done."""

    parts: list[tuple[int, int, list[bytes]]] = field(default_factory=list)
    """(segment, offset in it, buffers)"""
    last_index: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    """segment → offset of its end after the write"""


class Journal:
    """The log in ``directory``. Raises CorruptData (file and offset) if it is damaged, OSError if it cannot be read.

    ``commit_floor`` is what ``getRaftCommitIndex`` answers: the index up to which the state machine has applied.
    A commit index is never kept here: it could lie beyond what survived. None: whether the log fits the state is
    not checked. ``look``: the segments are only read, nothing is changed, and there are no term and vote.
    """

    def __init__(
        self,
        directory: Path,
        *,
        commit_floor: int | None = 0,
        segment_bytes: int = JOURNAL_SEGMENT_BYTES,
        tail_bytes_max: int = JOURNAL_TAIL_BYTES_MAX,
        look: bool = False,
    ) -> None:
        self._look = look
        if not look and not (directory / "term").exists():
            fsync.make_directory(directory)  # nothing in it is safe before its own name is
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._tail_bytes_max = tail_bytes_max
        self._commit_floor = commit_floor
        self._first = 1
        self._places = array("Q")  # segment << 32 | offset of the record
        self._lengths = array("I")
        self._term_starts: list[int] = []  # first index of each run of entries with one term
        self._terms: list[int] = []
        self._configurations: list[tuple[int, bytes]] = []
        self._tail: dict[int, bytes] = {}
        self._tail_first = 1
        self._tail_bytes = 0
        self._fds: dict[int, int] = {}
        self._fds_lock = threading.Lock()  # the writer thread and the loop both open segments
        self._segment = 0
        self._offset = 0
        self._synced = 0  # offset in the current segment
        self._pending = Flush()
        self._writing: Flush | None = None
        self.durable_index = 0
        fresh = not any(directory.glob("*.segment"))
        self._term_file = None if look else TermFile(directory / "term", may_begin=fresh)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    # --- what the guard and the apply loop use -------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        return self._first

    @property
    def last_index(self) -> int:
        """0 if the log is empty."""
        return self._first + len(self._places) - 1

    @property
    def last_term(self) -> int:
        return self._terms[-1] if self._terms else 0

    def term(self, index: int) -> int:
        """Term of the entry at ``index``; IndexError if it is not in the log."""
        if not self._first <= index <= self.last_index:
            raise IndexError(f"index {index} is not in the log ({self._first} to {self.last_index})")
        return self._terms[bisect_right(self._term_starts, index) - 1]

    def first_index_of_term(self, index: int) -> int:
        """First index in the log of the run of entries that have the term of the one at ``index``."""
        return max(self._first, self._term_starts[bisect_right(self._term_starts, index) - 1])

    @property
    def term_runs(self) -> list[tuple[int, int]]:
        """(first index, term) of each run of entries with one term, in order."""
        return list(zip(self._term_starts, self._terms, strict=True))

    @property
    def configuration(self) -> tuple[int, bytes] | None:
        """Index and bytes of the newest entry that holds a configuration; the same object as long as it is that one.
        None if the log that was loaded or written in this life has none."""
        return self._configurations[-1] if self._configurations else None

    @property
    def segment_count(self) -> int:
        """Segments that the log is spread over."""
        return self._segment - (self._places[0] >> 32) + 1 if len(self._places) else 0

    def data(self, index: int) -> bytes:
        """Bytes of the entry at ``index``. Raises CorruptData if they are damaged on disk."""
        cached = self._tail.get(index)
        if cached is not None:
            return cached
        place = self._places[index - self._first]
        number, offset = place >> 32, place & 0xFFFFFFFF
        size = segments.RECORD_HEADER_BYTES + self._lengths[index - self._first]
        record = segments.decode_record(os.pread(self._fd(number), size, offset))
        if record is None or record.index != index:
            path = segments.segment_path(self._directory, number)
            raise CorruptData(f"{path}: the record at offset {offset} (index {index}) is damaged")
        return bytes(record.data)

    def py_entry(self, index: int) -> PyEntry:
        return EntryData(self, index, self._lengths[index - self._first]), index, self.term(index)

    # --- durability ----------------------------------------------------------------------------------------------

    def take(self) -> Flush | None:
        """What waits to be written, or None if there is nothing or a write is under way."""
        if self._writing is not None or not self._pending.parts:
            return None
        self._writing, self._pending = self._pending, Flush(last_index=self._pending.last_index)
        return self._writing

    def write(self, flush: Flush) -> None:
        """Write and fsync (blocking; any thread). OSError: nothing of it counts, and it may be called again."""
        for number, offset, buffers in flush.parts:
            fd = self._fd(number)
            data = b"".join(buffers)
            written = 0
            while written < len(data):
                written += os.pwrite(fd, memoryview(data)[written:], offset + written)
            fsync.sync_data(fd, segments.segment_path(self._directory, number))
            if offset == 0:
                fsync.sync_directory(self._directory)

    def complete(self, flush: Flush) -> None:
        """Count what ``write`` made durable."""
        assert flush is self._writing
        self._writing = None
        self.durable_index = max(self.durable_index, flush.last_index)
        if self._segment in flush.ends:
            self._synced = flush.ends[self._segment]
        self._evict()

    def flush(self) -> None:
        """Write everything that waits, blocking: take, write and complete in one go."""
        while (flush := self.take()) is not None:
            self.write(flush)
            self.complete(flush)

    def close(self) -> None:
        """Close the files. What was not written by then is lost, as in a crash."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        if self._term_file is not None:
            self._term_file.close()

    # --- the log's beginning -------------------------------------------------------------------------------------

    def cut(self, *, keep_segments: int, below: int) -> list[Path]:
        """Forget the oldest whole segments, down to the newest ``keep_segments``, as long as all their entries have an
        index under ``below`` (which must be durable in the state). Returns the files, for ``unlink``."""
        newest = self._first_kept(keep_segments, below)
        gone = bisect_left(self._places, newest << 32)
        if gone == 0:
            return []
        oldest = self._places[0] >> 32
        del self._places[:gone]
        del self._lengths[:gone]
        self._first += gone
        run = bisect_right(self._term_starts, self._first) - 1
        del self._term_starts[:run]
        del self._terms[:run]
        while self._tail_first < self._first:
            self._forget_tail(self._tail_first)
            self._tail_first += 1
        return [segments.segment_path(self._directory, number) for number in range(oldest, newest)]

    def can_cut(self, *, keep_segments: int, below: int) -> bool:
        """Whether ``cut`` would forget anything."""
        return self._places[0] >> 32 < self._first_kept(keep_segments, below)

    def _first_kept(self, keep_segments: int, below: int) -> int:
        """The oldest segment that a cut leaves."""
        return min(self._segment - keep_segments + 1, self._places[below - self._first] >> 32)

    def unlink(self, paths: list[Path]) -> None:
        """Delete segments that ``cut`` gave, oldest first, each durably before the next, so that a crash leaves no gap
        (blocking; any thread)."""
        for path in paths:
            path.unlink(missing_ok=True)
            fsync.sync_directory(self._directory)
            with self._fds_lock:
                fd = self._fds.pop(segments.segment_number(path), None)
            if fd is not None:
                os.close(fd)

    @staticmethod
    def begin_at(directory: Path, index: int, term: int, data: bytes) -> None:
        """Let the log in ``directory`` begin anew with one entry, which stands for all that a snapshot holds.

        Atomic and durable; the term and the vote stay. No journal may be open on the directory.
        """
        numbers = [segments.segment_number(path) for path in directory.glob("*.segment")]
        path = segments.segment_path(directory, max(numbers, default=0) + 1)
        record = segments.encode_record(index, term, data, 0)
        fsync.write_durably(path, segments.encode_header(segments.segment_number(path), base=True) + record)

    # --- the interface that PySyncObj uses (positions count from the first entry) --------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        if idx != self.last_index + 1 or term < self.last_term or not command:
            raise ValueError(f"entry {idx} of term {term} does not continue the log at {self.last_index}")
        record = segments.encode_record(idx, term, command, self._synced)
        if self._segment == 0 or self._offset + len(record) > self._segment_bytes:
            self._segment += 1
            self._offset = self._synced = 0
            self._put(segments.encode_header(self._segment))
        self._remember(idx, term, (self._segment << 32) | self._offset, command)
        self._put(record)
        self._pending.last_index = idx
        self._tail[idx] = command
        self._tail_bytes += len(command) + _TAIL_ENTRY_BYTES
        self._evict()

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        self._truncate(self._first + entryFrom)

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise NotImplementedError("the log's beginning is cut by whole segments, never by PySyncObj")

    def clear(self) -> None:
        raise NotImplementedError("PySyncObj must never clear the log")

    @overload
    def __getitem__(self, item: int) -> PyEntry: ...
    @overload
    def __getitem__(self, item: slice) -> EntrySlice: ...
    def __getitem__(self, item: int | slice) -> PyEntry | EntrySlice:
        if item == -1 and self._places:
            return self.py_entry(self.last_index)  # asked more often than all others
        return EntrySlice(self, self._first, self.last_index + 1)[item]

    def __len__(self) -> int:
        return len(self._places)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self._votes.set(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self._votes.term

    def getVotedForNodeId(self) -> str | None:
        return self._votes.voted_for

    def getRaftCommitIndex(self) -> int:
        return max(1, self._commit_floor or 0)

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Not kept: see the class."""

    def onOneSecondTimer(self) -> None:
        """PySyncObj's hook for lazy writes; here nothing is lazy."""

    def _destroy(self) -> Any:
        self.close()

    @property
    def _votes(self) -> TermFile:
        assert self._term_file is not None, "a log that is only looked at has no votes"
        return self._term_file

    # --- inside --------------------------------------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        parts = self._pending.parts
        if not parts or parts[-1][0] != self._segment:
            parts.append((self._segment, self._offset, []))
        parts[-1][2].append(data)
        self._offset += len(data)
        self._pending.ends[self._segment] = self._offset

    def _remember(self, index: int, term: int, place: int, data: bytes | memoryview) -> None:
        self._places.append(place)
        self._lengths.append(len(data))
        if data[0] == CONFIGURATION:
            self._configurations.append((index, bytes(data)))
        if not self._terms or self._terms[-1] != term:
            self._term_starts.append(index)
            self._terms.append(term)

    def _truncate(self, index: int) -> None:
        """Forget the entries from ``index`` on."""
        for gone in range(max(index, self._tail_first), self.last_index + 1):
            self._forget_tail(gone)
        keep = max(0, index - self._first)
        del self._places[keep:]
        del self._lengths[keep:]
        while self._configurations and self._configurations[-1][0] >= index:
            self._configurations.pop()
        while self._term_starts and self._term_starts[-1] >= index:
            self._term_starts.pop()
            self._terms.pop()
        self._tail_first = min(self._tail_first, index)
        self.durable_index = min(self.durable_index, index - 1)
        self._pending.last_index = min(self._pending.last_index, index - 1)
        if self._writing is not None:
            self._writing.last_index = min(self._writing.last_index, index - 1)

    def _forget_tail(self, index: int) -> None:
        data = self._tail.pop(index, None)
        if data is not None:
            self._tail_bytes -= len(data) + _TAIL_ENTRY_BYTES

    def _evict(self) -> None:
        while self._tail_bytes > self._tail_bytes_max and self._tail_first <= self.durable_index:
            self._forget_tail(self._tail_first)
            self._tail_first += 1

    def _fd(self, number: int) -> int:
        with self._fds_lock:
            fd = self._fds.get(number)
            if fd is None:
                path = segments.segment_path(self._directory, number)
                fd = self._fds[number] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            return fd

    def _load(self) -> None:
        paths = self._current_segments()
        for path in paths:
            last = path is paths[-1]
            number = segments.segment_number(path)
            if number != self._segment + 1:
                raise CorruptData(f"{self._directory}: segment {self._segment + 1} is missing before {path.name}")
            end = segments.read_segment(path, partial(self._replay, path, number), last=last)
            self._segment, self._offset = number, end
        if self._segment and not self._look:
            self._secure_tail()
        self._synced = self._offset
        self.durable_index = self.last_index
        self._tail_first = self.last_index + 1
        if self._commit_floor is None:
            return
        if self._first > max(1, self._commit_floor):  # the guard relies on it that the first entry is applied
            raise CorruptData(
                f"{self._directory}: the log begins at index {self._first}, but the state has applied only "
                f"{self._commit_floor}; what lies between was lost"
            )
        if self.last_index < self._commit_floor:
            raise CorruptData(
                f"{self._directory}: the log ends at index {self.last_index}, but the state has applied "
                f"{self._commit_floor}; the end of the log was lost"
            )

    def _current_segments(self) -> list[Path]:
        """The segments from the log's beginning on; what a snapshot replaced is deleted."""
        paths = sorted(self._directory.glob("*.segment"), key=segments.segment_number)
        bases = [at for at, path in enumerate(paths) if segments.is_base(path)]
        if bases and bases[-1] > 0:
            if not self._look:
                self.unlink(paths[: bases[-1]])
            paths = paths[bases[-1] :]
        if paths:
            self._segment = segments.segment_number(paths[0]) - 1
        return paths

    def _replay(self, path: Path, number: int, record: segments.Record) -> None:
        if record.index > self.last_index + 1 and len(self._places):
            raise CorruptData(
                f"{path}: record at offset {record.offset} jumps from index {self.last_index} to {record.index}"
            )
        if not len(self._places):
            self._first = record.index
            self._tail_first = record.index
        elif record.index <= self.last_index:
            self._truncate(record.index)
            # The oldest segment may begin with entries that later ones replaced, and their predecessors may be cut.
            self._first = min(self._first, record.index)
        if record.term < self.last_term:
            raise CorruptData(f"{path}: record at offset {record.offset} goes back to term {record.term}")
        self._remember(record.index, record.term, (number << 32) | record.offset, record.data)

    def _secure_tail(self) -> None:
        """Cut what is unfinished, and make durable what a killed process may have left in the page cache alone."""
        path = segments.segment_path(self._directory, self._segment)
        if self._offset == 0:
            # Not even its header was finished. Its number is used again.
            path.unlink()
            self._segment -= 1
            self._offset = self._segment_bytes  # full: the next record opens a new one
        else:
            fd = self._fd(self._segment)
            os.ftruncate(fd, self._offset)
            fsync.sync_data(fd, path)
        fsync.sync_directory(self._directory)
