"""Three services over the shipped fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from raftfs.chunks import ChunkStore
from raftfs.config import MemberConfig, NodeConfig
from raftfs.service import ReadOptions, Service, WriteOptions
from raftfs.service.members import bootstrap
from raftfs.state import Reader, StateMachine
from raftfs.state.commands import Stat
from raftfs.testing.fakes import FakeConsensus, FakeLog, FakeNetwork, FakeTransport, ManualClock
from raftfs.versions import FORMAT_VERSION

GRACE_S = 100.0
STALE = ReadOptions(consistency="stale")
LINEAR = ReadOptions()


class Trio:
    """Members n1 (leading), n2, n3."""

    def __init__(self, folder: Path, count: int = 3, *, version: int = FORMAT_VERSION, **settings: Any) -> None:
        self.folder = folder
        self.names = [f"n{n}" for n in range(1, count + 1)]
        members = [
            MemberConfig(id=name, peer=f"127.0.0.1:{7410 + n}", url=f"http://127.0.0.1:{7400 + n}")
            for n, name in enumerate(self.names, 1)
        ]
        self.clock = ManualClock()
        self.network = FakeNetwork(self.names)
        for name in self.names:
            (folder / name).mkdir(exist_ok=True)
        self.machines = {name: StateMachine(folder / name / "state.db", version=version) for name in self.names}
        self.log = FakeLog(self.network, self.machines, "n1", bootstrap(members))
        self.stores = {name: ChunkStore(folder / name / "chunks", wall_clock=self.clock.wall_s) for name in self.names}
        self.services = {
            name: Service(
                config=NodeConfig(
                    id=name, cluster_id="c", data_dir=folder / name, members=members,
                    **{"chunk_grace_s": GRACE_S, "request_deadline_s": 30.0, **settings},
                ),
                consensus=FakeConsensus(self.log, name, self.clock),
                transport=FakeTransport(self.network, name),
                chunks=self.stores[name],
                open_reader=lambda name=name: Reader(folder / name / "state.db"),  # type: ignore[misc]
                clock=self.clock,
            )
            for name in self.names
        }  # fmt: skip

    @property
    def leader(self) -> Service:
        assert self.log.leader is not None
        return self.services[self.log.leader]

    async def close(self) -> None:
        for service in self.services.values():
            await service.stop()
        for machine in self.machines.values():
            machine.close()

    async def put(
        self, path: str, body: bytes | AsyncIterator[bytes], *, size: int | None = None,
        write: WriteOptions | None = None, **options: Any,
    ) -> tuple[Stat, bool]:  # fmt: skip
        if isinstance(body, bytes):
            size = len(body)
            body = pieces(body)
        asked = {
            "content_type": None, "metadata": {}, "if_match": None, "if_absent": False, "parents": False,
            "sha256": None, **options,
        }  # fmt: skip
        return await self.leader.files.put(path, body, size=size, write=write or WriteOptions(), **asked)

    async def read(self, name: str, path: str, read: ReadOptions = LINEAR) -> bytes:
        opened = await self.services[name].files.open(path, read)
        return b"".join([piece async for piece in opened.read(0, opened.stat.size)])

    def chunk_file(self, name: str, digest: bytes) -> Path:
        return self.folder / name / "chunks" / digest.hex()[:2] / digest.hex()

    def digests(self, name: str) -> set[bytes]:
        return set(self.stores[name].digests())

    async def collect_everything(self) -> None:
        """Let the grace pass and collect on every node."""
        self.clock.advance(GRACE_S + 1)
        for service in self.services.values():
            await service.collector.round()

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """A member is away meanwhile. It is back when no copy of a chunk is on its way to it any more: one that was not
        needed for an answer is tried once more behind it, and the member would get it after all."""
        self.network.down.add(name)
        yield
        await until(lambda: not any(task.get_name().endswith(f" to {name}") for task in asyncio.all_tasks()))
        self.network.down.discard(name)

    async def backfill(self, name: str) -> None:
        """Two rounds: seen missing, then fetched."""
        for _ in range(2):
            await self.services[name].backfill.round()


@asynccontextmanager
async def trio(folder: Path, count: int = 3, **settings: Any) -> AsyncIterator[Trio]:
    cluster = Trio(folder, count, **settings)
    try:
        yield cluster
    finally:
        await cluster.close()


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    """A body as it comes from a socket."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is sure to happen (the test's own timeout is the limit)."""
    while not condition():  # noqa: ASYNC110 - the conditions are of many kinds, most without an event
        await asyncio.sleep(0.005)


def only(values: Iterable[bytes]) -> bytes:
    (value,) = values
    return value
