"""The clients that work all through the trial, and how long each was kept waiting.

The nemesis's clients write the history that is judged. Beside them one client of the library writes a register again
and again, and one reads it, as users would: through a frontend and all nodes. They say how long the store was not to be
written to, or read. What they see is part of the history as well.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from raftfs import AsyncClient
from raftfs.errors import RaftfsError
from raftfs.testing import history as h
from raftfs.testing.nemesis import bodies
from raftfs.testing.nemesis.clients import Clients
from raftfs.testing.nemesis.doors import Door, Notes
from raftfs.testing.nemesis.watch import Watch

CLIENTS: Final = 4
REGISTER: Final = "/register"
_BODY_BYTES: Final = 200
_THINK_S: Final = 0.1  # also how exactly interruptions are measured; playbooks need the processors, too
_CALL_S_MAX: Final = 30.0
_FIRST_S_MAX: Final = 60.0


@dataclass
class Cluster:
    """The servers as clients know them. Members come and go: ``nodes`` and ``first`` are those of the moment."""

    urls: dict[str, str]
    nodes: list[str]
    frontends: list[str]
    tls: ssl.SSLContext | bool = True
    emptied: Counter[str] = field(default_factory=Counter)

    @property
    def first(self) -> list[str]:
        return self.nodes

    @property
    def endpoints(self) -> list[str]:
        return [self.urls[name] for name in [*self.frontends, *self.nodes]]

    def door(self, dice: random.Random) -> str:
        return dice.choice([*self.nodes, *self.frontends])

    def clock(self, name: str) -> int:
        return 0


@dataclass(frozen=True)
class Interruption:
    """The longest times, in seconds, in which no write of the register was acknowledged, and no read answered."""

    write_s: float
    read_s: float


def longest_gap(moments: Sequence[float], begin: float, end: float) -> float:
    """The longest time between two neighbours of ``moments`` (sorted), as far as it lies between ``begin`` and ``end``:
    a time without any is as long as the whole."""
    inside = [begin, *(moment for moment in moments if begin < moment < end), end]
    return max(after - before for before, after in itertools.pairwise(inside))


class Traffic:
    """Clients of ``cluster`` from ``begin`` to ``end``. ``connect`` makes a client of the library, and is asked for
    another one whenever ``renew`` was called."""

    def __init__(self, cluster: Cluster, seed: int, connect: Callable[[], AsyncClient]) -> None:
        self.cluster = cluster
        self.clients = Clients(cluster, seed, CLIENTS)
        self.watch = Watch(cluster)
        self._connect = connect
        self._written: list[float] = []
        self._read: list[float] = []
        self._around: list[asyncio.Task[None]] = []
        self._stopping = False
        self._generation = 0

    @property
    def notes(self) -> Notes:
        return self.clients.notes

    @property
    def written(self) -> int:
        """How many writes of the register were acknowledged."""
        return len(self._written)

    async def begin(self) -> None:
        """Raises TimeoutError if nobody acknowledges a first write."""
        self._around = [asyncio.create_task(one()) for one in (self._write, self._reads, self.watch.run)]
        async with asyncio.timeout(_FIRST_S_MAX):
            while not self._written:
                await asyncio.sleep(0.05)
                for task in self._around:
                    if task.done():
                        task.result()
        self.clients.begin()

    async def end(self) -> None:
        """Let what is under way end. Raises what a client died of."""
        self._stopping = True
        *calls, watch = self._around
        watch.cancel()
        try:
            await asyncio.gather(*calls)
        finally:
            await asyncio.gather(watch, return_exceptions=True)
            await self.clients.end()

    async def read_all(self) -> None:
        """Read every file through every member, as a part of the history."""
        await self.clients.read_all()
        door = Door("last", self.cluster, self.notes, random.Random(0))
        try:
            for node in self.cluster.nodes:
                await door.do(h.Read(REGISTER), only=node)
        finally:
            await door.close()

    async def close(self) -> None:
        await self.watch.close()

    def renew(self) -> None:
        """From the next call on the library's clients are new ones: whom they trust, or whom they ask, has changed."""
        self._generation += 1

    def interruption(self, begin: float, end: float) -> Interruption:
        """Between two moments of the monotonic clock."""
        return Interruption(longest_gap(self._written, begin, end), longest_gap(self._read, begin, end))

    async def _write(self) -> None:
        """The only one who writes the register."""
        numbers = itertools.count()
        while not self._stopping:
            generation = self._generation
            async with self._connect() as client:
                while generation == self._generation and not self._stopping:
                    await self._write_once(client, f"w{next(numbers)}")
                    await asyncio.sleep(_THINK_S)

    async def _write_once(self, client: AsyncClient, value: str) -> None:
        call, begin = h.Write(REGISTER, value), time.monotonic()
        try:
            await client.write(REGISTER, bodies.make("", value, _BODY_BYTES), timeout=_CALL_S_MAX)
        except RaftfsError as error:
            if not self._written:
                raise  # whether the next one creates the register would not be known
            if error.outcome == "not_applied":
                self.notes.outcomes["fail"] += 1
                self.notes.refused.append(h.Operation(call, None, begin, time.monotonic(), "library", note=repr(error)))
            else:
                self.notes.outcomes["unknown"] += 1
                self.notes.history.append(h.Operation(call, None, begin, h.NEVER, "library", note=repr(error)))
        else:
            self._note(call, h.REPLACED if self._written else h.CREATED, begin)
            self._written.append(time.monotonic())

    async def _reads(self) -> None:
        while not self._stopping:
            generation = self._generation
            async with self._connect() as client:
                while generation == self._generation and not self._stopping:
                    await self._read_once(client)
                    await asyncio.sleep(_THINK_S)

    async def _read_once(self, client: AsyncClient) -> None:
        call, begin = h.Read(REGISTER), time.monotonic()
        try:
            body = await client.read(REGISTER, timeout=_CALL_S_MAX)
        except FileNotFoundError:
            self._note(call, h.MISSING, begin)
        except RaftfsError:
            self.notes.outcomes["fail"] += 1
        else:
            value = bodies.value_of("", body)
            if isinstance(value, bodies.Damage):
                self.notes.wrong.append(f"{begin:.6f} the register: {value.text}")
            else:
                self._note(call, value, begin)
                self._read.append(time.monotonic())

    def _note(self, call: h.Call, result: str, begin: float) -> None:
        self.notes.outcomes["ok"] += 1
        self.notes.history.append(h.Operation(call, result, begin, time.monotonic(), "library"))
