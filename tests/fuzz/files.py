"""What is fuzzed of a node's own files. Each target is as in ``targets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from raftfs.consensus.journal import Journal
from raftfs.consensus.rejoinfile import Content, RejoinFile
from raftfs.consensus.termfile import TermFile
from raftfs.errors import CorruptData
from raftfs.service.datadir import Identity, read_identity, write_identity
from raftfs.service.recovery import Recovery, Survivor
from raftfs.service.snapshots import check_fetched

from .place import Check, folder_in_memory
from .seeds import COPY, COPY_INDEX_TERM, JOURNAL_ENTRIES, RECOVERY, REJOINS, VOTE, journal_files


def _check_names(error: CorruptData, path: Path) -> None:
    assert str(path) in error.detail, error.detail


@contextmanager
def journal(open_journal: Callable[..., Journal] = Journal) -> Iterator[Check]:
    """Exactly the records that were there, perhaps without an end that looks torn; or damage, by file and offset. The
    first byte says which of the segments it is."""
    originals = dict(JOURNAL_ENTRIES)
    with folder_in_memory() as folder:
        number = 0

        def check(data: bytes) -> None:
            nonlocal number
            number += 1
            place = folder / str(number)
            place.mkdir()
            files = journal_files()
            names = sorted(name for name in files if name.endswith(".segment"))
            files[names[data[0] % len(names)] if data else names[0]] = data[1:]
            for name, content in files.items():
                (place / name).write_bytes(content)
            try:
                opened = open_journal(place, commit_floor=None)
            except CorruptData as error:
                _check_names(error, place)
                return
            with closing(opened):
                for index in range(opened.first_index, opened.last_index + 1):
                    found = opened.term(index), opened.data(index)
                    assert found == originals[index], f"index {index} holds other bytes"

        yield check


@contextmanager
def term_file(open_file: Callable[[Path], TermFile] = TermFile) -> Iterator[Check]:
    """The very vote, or a refusal."""
    with folder_in_memory() as folder:
        path = folder / "term"

        def check(data: bytes) -> None:
            path.write_bytes(data or b"\0")
            try:
                opened = open_file(path)
            except CorruptData as error:
                _check_names(error, path)
                return
            with closing(opened):
                assert (opened.term, opened.voted_for) == VOTE

        yield check


@contextmanager
def identity(read: Callable[[Path], Identity | None] = read_identity) -> Iterator[Check]:
    """Who the node is, or a refusal."""
    with folder_in_memory() as folder:
        ours = Identity("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "n1", "c")
        write_identity(folder, ours)

        def check(data: bytes) -> None:
            (folder / "node.json").write_bytes(data)
            try:
                assert read(folder) == ours
            except CorruptData as error:
                _check_names(error, folder / "node.json")

        yield check


@contextmanager
def rejoin(read: Callable[[Path], Content | None] = lambda folder: RejoinFile(folder).content) -> Iterator[Check]:
    """The stage that was kept, or a refusal: a later one would let a member that forgot its votes vote."""
    with folder_in_memory() as folder:

        def check(data: bytes) -> None:
            (folder / "rejoin.json").write_bytes(data)
            try:
                found = read(folder)
            except CorruptData as error:
                _check_names(error, folder / "rejoin.json")
                return
            assert found in REJOINS, found

        yield check


def _begun(folder: Path) -> Recovery | None:
    return Survivor(folder, Identity("u", "n1", "c"), None).begun


@contextmanager
def recovery(read: Callable[[Path], Recovery | None] = _begun) -> Iterator[Check]:
    """The recovery that was decided on, or a refusal."""
    with folder_in_memory() as folder:

        def check(data: bytes) -> None:
            (folder / "recovery.json").write_bytes(data)
            try:
                assert read(folder) == RECOVERY
            except CorruptData as error:
                _check_names(error, folder / "recovery.json")

        yield check


@contextmanager
def snapshot(check_it: Callable[[Path], bool] = check_fetched) -> Iterator[Check]:
    """A fetched copy is announced as what it is, or refused."""
    with folder_in_memory() as folder:
        (folder / "snapshot").mkdir()
        (folder / "snapshot" / "incoming.db").write_bytes(COPY)

        def check(data: bytes) -> None:
            (folder / "snapshot" / "ready.json").write_bytes(data)
            try:
                assert check_it(folder)
            except CorruptData as error:
                _check_names(error, folder / "snapshot")
                return
            found = msgspec.json.decode(data)
            assert (found["index"], found["term"]) == COPY_INDEX_TERM

        yield check
