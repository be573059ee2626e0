"""Damage of the database while its node is stopped: any byte of it, of its log and of the checksums.

Each state is opened with some of its bytes damaged. It is refused by name, or it holds, byte for byte, what some entry
left (the log of entries brings the rest); never anything else.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from raftfs.errors import CorruptData
from raftfs.state import Reader, StateMachine, pages, schema
from raftfs.state.commands import CommitFile, Envelope, MakeDirectory, Remove, encode
from raftfs.versions import FORMAT_VERSION

FILES = ("state.db", "state.db-wal", "state.db-shm", "state.db-sums")
ENTRIES = 40
Damage = Callable[[Path, int], None]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << at % 8
    path.write_bytes(data)


def zero(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    start = at - at % 512
    data[start : start + 512] = bytes(min(512, len(data) - start))
    path.write_bytes(data)


def cut(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.truncate(at)


def delete(path: Path, at: int) -> None:
    path.unlink()


DAMAGES: dict[str, Damage] = {"flip": flip, "zero": zero, "cut": cut, "delete": delete}


def entry(index: int) -> bytes:
    path, dice = f"/f{index % 20}", random.Random(index)
    command: object
    if index % 7 == 3:
        command = MakeDirectory(f"/d{index}", exist_ok=True)
    elif index % 11 == 5:
        command = Remove(path)
    else:
        data = dice.randbytes(dice.choice((0, 10, 300, 5000, 30_000)))
        command = CommitFile(path, len(data), data=data)
    return encode(Envelope(command, index, key=f"key {index}", fingerprint=b"x"))  # type: ignore[arg-type]


def rows(path: Path) -> str:
    """A hash of every row of every table."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall():
            for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2"):
                found.update(repr((table, row)).encode())
    return found.hexdigest()


def machine_at(path: Path) -> StateMachine:
    return StateMachine(path, version=FORMAT_VERSION)


class Made:
    """A state that died with a partly used log: copied at the moment of death. ``history``: its rows by index."""

    def __init__(self, folder: Path, *, kind: str) -> None:
        self.folder = folder / "dead"
        self.history: dict[int, str] = {}
        live = folder / "live"
        live.mkdir()
        machine = machine_at(live / "state.db")
        with closing(Reader(live / "state.db")) as reader:
            self.history[0] = rows(live / "state.db")
            for index in range(1, ENTRIES + 1):
                machine.apply(index, 1, [entry(index)])
                self.history[index] = rows(live / "state.db")
                self._checkpoint(machine, reader, index, kind)
            if kind != "closed":
                shutil.copytree(live, self.folder)
        machine.close()
        if kind == "closed":
            shutil.copytree(live, self.folder)

    @staticmethod
    def _checkpoint(machine: StateMachine, reader: Reader, index: int, kind: str) -> None:
        if index == 20:
            machine.checkpoint()
        elif index == 30 and kind == "copied":
            # All is copied, and a reader keeps the log from being emptied: it goes on behind what was copied.
            with reader.snapshot():
                reader.applied()
                schema.copy_log(machine._db, machine._path, wait=False)
        elif index == 30 and kind == "partly copied":
            with reader.snapshot():
                reader.applied()
                machine.apply(31, 1, [entry(31)])
                assert not schema.copy_log(machine._db, machine._path, wait=False)

    def regions(self, name: str, step: int) -> Iterator[int]:
        size = (self.folder / name).stat().st_size
        yield from (at for at in (0, 16, 20, 24, 31, 32, 36, 48, 56, 100, 516, 532, 4096, 4100) if at < size)
        yield from range(step, size, step)


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """Thousands of files are copied, opened and synced: not on a disk."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


@pytest.fixture(scope="module", params=["closed", "killed", "copied", "partly copied"])
def made(request: pytest.FixtureRequest, memory: Path) -> Made:
    folder = memory / request.param
    folder.mkdir()
    return Made(folder, kind=request.param)


def judge(made: Made, folder: Path, opener: Callable[[Path], StateMachine] = machine_at) -> str:
    """What became of a damaged state: "refused", or "index N". AssertionError if it holds what no entry left."""
    try:
        machine = opener(folder / "state.db")
    except CorruptData as error:
        if "state.db" not in error.detail:
            raise
        return "refused"
    try:
        found = machine.applied_index
        assert rows(folder / "state.db") == made.history[found], f"wrong rows at index {found}"
        for index in range(found + 1, ENTRIES + 1):
            machine.apply(index, 1, [entry(index)])
        machine.checkpoint()
        assert rows(folder / "state.db") == made.history[ENTRIES]
    finally:
        machine.close()
    again = StateMachine(folder / "state.db")
    assert again.applied_index == ENTRIES
    again.close()
    return f"index {found}"


def damage_all(
    made: Made, folder: Path, names: Sequence[str], step: int, opener: Callable[[Path], StateMachine]
) -> int:
    told: dict[str, int] = {}
    for name in names:
        if not (made.folder / name).exists():
            continue
        for kind, damage in DAMAGES.items():
            for at in [0] if kind == "delete" else made.regions(name, step):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(made.folder, folder)
                damage(folder / name, at)
                try:
                    what = judge(made, folder, opener)
                except (AssertionError, CorruptData, sqlite3.Error) as error:
                    raise AssertionError(f"{kind} {name} at {at}: {error}") from error
                told[f"{kind} {name}: {what}"] = told.get(f"{kind} {name}: {what}", 0) + 1
    print("\n".join(f"{number:5} {what}" for what, number in sorted(told.items())))
    return sum(told.values())


def test_undamaged_it_is_whole(made: Made, memory: Path) -> None:
    shutil.rmtree(memory / "copy", ignore_errors=True)
    shutil.copytree(made.folder, memory / "copy")
    assert judge(made, memory / "copy") == f"index {ENTRIES}"


def test_damage_is_refused_or_does_no_harm(made: Made, memory: Path) -> None:
    assert damage_all(made, memory / "copy", FILES, 97_003, machine_at) > 100


class Unchecked(StateMachine):
    """A machine that opens its database as SQLite finds it."""

    def __init__(self, path: Path) -> None:
        hidden = path.rename(path.with_suffix(".hidden"))
        pages.PageSums(path).begin()  # as if nothing had been copied into the database yet
        hidden.rename(path)
        super().__init__(path)


def test_without_checksums_wrong_rows_are_found(memory: Path) -> None:
    """The judge notices a node that does not look: SQLite alone serves what was damaged."""
    (memory / "unchecked").mkdir()
    made = Made(memory / "unchecked", kind="closed")
    with pytest.raises(AssertionError, match=r"(flip|zero) state\.db at"):
        damage_all(made, memory / "copy", ("state.db",), 30_011, Unchecked)
