"""Whole members (event loop, threads, journal on disk) that talk through this process instead of through sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from raftfs.config import RaftTimes
from raftfs.consensus import Configuration, Consensus, Entry
from raftfs.consensus import messages as m
from raftfs.consensus.parts import LogSizes
from raftfs.consensus.peers import Callbacks
from raftfs.errors import NotLeader

QUICK = RaftTimes(heartbeat_ms=20, election_timeout_ms_min=150, election_timeout_ms_max=300)


class Wire:
    """Stands for PeerTransport. ``cut`` nodes send and hear nothing."""

    def __init__(self, name: str, wires: dict[str, Wire]) -> None:
        self.name = name
        self.on = Callbacks()
        self.cut = False
        self._wires = wires
        wires[name] = self

    def send(self, peer: str, message: m.Message) -> None:
        raw = m.encode(message)
        if self.connected(peer):
            asyncio.get_running_loop().call_soon(self._arrive, peer, raw)

    def _arrive(self, peer: str, raw: bytes) -> None:
        if self.connected(peer):
            self._wires[peer].on.message(self.name, m.decode(raw))

    def connected(self, peer: str) -> bool:
        return not self.cut and peer in self._wires and not self._wires[peer].cut

    def refusal(self, peer: str) -> str | None:
        return None

    def set_cut(self, cut: bool) -> None:
        """Cut this node off, or connect it again, and tell everybody."""
        if cut == self.cut:
            return
        self.cut = cut
        for peer, wire in self._wires.items():
            if peer != self.name:
                for end, other in ((self, peer), (wire, self.name)):
                    (end.on.disconnected if cut else end.on.connected)(other)


class Echo:
    """A state machine that keeps the commands and answers each with itself; it raises if it ``raises``."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []
        self.checkpoints = 0
        self.raises = False
        self.raised = 0

    def apply(self, entries: Sequence[Entry]) -> list[list[Any]]:
        for entry in entries:
            if self.raises and entry.commands:
                self.raised += 1
                raise ValueError("a state machine that raises")
            self.commands += entry.commands
        return [list(entry.commands) for entry in entries]

    def checkpoint(self) -> None:
        self.checkpoints += 1


class Members:
    def __init__(self, directory: Path, names: str, sizes: LogSizes | None) -> None:
        self.wires: dict[str, Wire] = {}
        self.states = {name: Echo() for name in names}
        self.nodes: dict[str, Consensus] = {}
        for name in names:
            (directory / name).mkdir()
            self.nodes[name] = Consensus(
                me=name,
                configuration=Configuration.of(names),
                data_dir=directory / name,
                applier=self.states[name],
                applied_index=0,
                times=QUICK,
                transport=Wire(name, self.wires),  # type: ignore[arg-type]
                sizes=sizes,
            )

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.005)

    async def leader(self, *, among: str | None = None) -> str:
        """Wait until one node leads and the others know it."""
        names = among or "".join(self.nodes)
        await self.until(lambda: self._leader(names))
        return self._leader(names) or await self.leader(among=among)

    async def propose(self, command: bytes, *, among: str | None = None) -> str:
        """Propose at whoever leads, again if it leads no more. Returns who it was."""
        while True:
            name = await self.leader(among=among)
            with suppress(NotLeader):
                assert await self.nodes[name].propose(command, timeout_s=30) == command
                return name

    def _leader(self, names: str) -> str | None:
        for name in names:
            if self.nodes[name].is_leader and all(self.nodes[other].leader_id == name for other in names):
                return name
        return None


@asynccontextmanager
async def members(directory: Path, names: str = "abc", sizes: LogSizes | None = None) -> AsyncIterator[Members]:
    """Members that run, all connected."""
    group = Members(directory, names, sizes)
    for node in group.nodes.values():
        await node.start()
    for name, wire in group.wires.items():
        for peer in group.wires:
            if peer != name:
                wire.on.connected(peer)
    try:
        async with asyncio.timeout(60):
            yield group
    finally:
        for node in group.nodes.values():
            await node.stop()
