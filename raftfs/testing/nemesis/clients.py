"""Several clients that work on the same few files at once, through all doors, and note everything.

Files live in *cells*: a directory of one register (read, write, compare and set, create, delete) or of some files that
are renamed and listed as well. A cell is left after a while for a fresh one, which keeps each part of the history short
enough to be judged.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from dataclasses import dataclass
from typing import Final, Literal

import aiohttp

from raftfs.testing import history as h
from raftfs.testing.nemesis.doors import Door, Notes, Targets

CELL_OPERATIONS: Final = 300
_THINK_S: Final[dict[str, float]] = {"register": 0.04, "files": 0.04, "large": 1.5}
_LARGE_WRITES_MAX: Final = 60
"""Old versions are kept, and the disks are small: after so many, large files are no longer so large."""

_NAMES: Final = ("a", "b", "c", "d")
_MAKE_DIRECTORY_S_MAX: Final = 60.0

Kind = Literal["register", "files", "large"]
KINDS: Final[tuple[Kind, ...]] = ("register", "register", "files", "large")


@dataclass
class Cell:
    """A directory and what is in it. ``used``: operations so far."""

    path: str
    kind: Kind
    used: int = 0

    @property
    def files(self) -> list[str]:
        names = _NAMES if self.kind == "files" else _NAMES[:1]
        return [f"{self.path}/{name}" for name in names]


class Clients:
    """``count`` clients of ``servers``, from ``begin`` to ``end``."""

    def __init__(self, servers: Targets, seed: int, count: int) -> None:
        self.notes = Notes()
        self.cells: list[Cell] = []
        self._servers, self._seed, self._count = servers, seed, count
        self._now: dict[int, Cell] = {}
        self._renewing: dict[int, asyncio.Lock] = {number: asyncio.Lock() for number in range(len(KINDS))}
        self._tasks: list[asyncio.Task[None]] = []
        self._large_writes = 0

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(self._count)]

    async def end(self) -> None:
        """Let no client begin anything more, and wait for what is under way. Raises what a client died of."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def read_all(self) -> None:
        """Read every file through every node, as a part of the history; each cell's nodes in another order."""
        dice = random.Random(f"last/{self._seed}")
        door = Door("last", self._servers, self.notes, dice)
        try:
            for cell in self.cells:
                for node in dice.sample(self._servers.first, len(self._servers.first)):
                    if cell.kind == "files":
                        await door.do(h.Names(cell.path), only=node)
                    for path in cell.files:
                        await door.do(h.Read(path), only=node)
        finally:
            await door.close()

    async def _work(self, number: int) -> None:
        dice = random.Random(f"client/{self._seed}/{number}")
        door = Door(f"c{number}", self._servers, self.notes, dice)
        # One client in four only works on large files, which take their time.
        slots = [slot for slot, kind in enumerate(KINDS) if (kind == "large") == (number % 4 == 3)]
        working: asyncio.Task[None] | None = None
        try:
            while True:
                cell = await self._cell(dice.choice(slots), dice)
                cell.used += 1
                working = asyncio.create_task(_step(door, cell, self._size(cell, dice), dice))
                await asyncio.shield(working)
                await asyncio.sleep(dice.expovariate(1 / _THINK_S[cell.kind]))
        except asyncio.CancelledError:
            if working is not None:
                await working  # a write that is under way must be noted, whatever becomes of it
        finally:
            await door.close()

    async def _cell(self, slot: int, dice: random.Random) -> Cell:
        async with self._renewing[slot]:
            cell = self._now.get(slot)
            if cell is None or cell.used >= CELL_OPERATIONS:
                cell = Cell(f"/cell-{len(self.cells)}-{KINDS[slot]}", KINDS[slot])
                await self._make(cell.path, dice)
                self._now[slot] = cell
                self.cells.append(cell)
            return cell

    def _size(self, cell: Cell, dice: random.Random) -> int:
        """Bytes: in the log up to 32 KiB, in chunks above, of which a large file has several."""
        if cell.kind == "large" and self._large_writes < _LARGE_WRITES_MAX:
            self._large_writes += 1
            return dice.randrange(4_300_000, 9_000_000)
        return dice.randrange(20, 4_000) if dice.random() < 0.9 else dice.randrange(33_000, 200_000)

    async def _make(self, path: str, dice: random.Random) -> None:
        """Make a directory, however often that has to be tried. Raises TimeoutError."""
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Raftfs-Timeout": "3"}
        async with asyncio.timeout(_MAKE_DIRECTORY_S_MAX), aiohttp.ClientSession() as session:
            while True:
                url = self._servers.urls[self._servers.door(dice)]
                try:
                    timeout = aiohttp.ClientTimeout(total=4, connect=1)
                    async with session.put(
                        f"{url}/v1/dirs{path}", headers=headers, timeout=timeout, ssl=self._servers.tls
                    ) as answer:
                        if answer.status in (200, 201):
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.2)


async def _step(door: Door, cell: Cell, size: int, dice: random.Random) -> None:
    """One thing that a client does in a cell."""
    path, other = dice.sample(cell.files, 2) if cell.kind == "files" else (cell.files[0], "")
    value, throw = uuid.UUID(int=dice.getrandbits(128)).hex[:16], dice.random()
    if cell.kind == "files":
        await door.do(_files_call(throw, cell.path, path, other, value, dice), size=size)
    elif throw < 0.45:
        await door.do(h.Read(path))
    elif throw < 0.65:
        await door.do(h.Write(path, value), size=size)
    elif throw < 0.85:
        expected, etag = await door.do(h.Read(path))
        if expected is not None and etag is not None:
            await door.do(h.Swap(path, expected, value), size=size, etag=etag)
    elif throw < 0.92:
        await door.do(h.Create(path, value), size=size)
    else:
        await door.do(h.Delete(path))


def _files_call(throw: float, directory: str, path: str, other: str, value: str, dice: random.Random) -> h.Call:
    if throw < 0.20:
        return h.Read(path)
    if throw < 0.45:
        return h.Names(directory)
    if throw < 0.62:
        return h.Write(path, value)
    if throw < 0.70:
        return h.Create(path, value)
    if throw < 0.80:
        return h.Delete(path)
    return h.Rename(path, other, replace=dice.random() < 0.5)
