"""PySyncObj as it is released, several nodes in one process, under virtual time and a virtual network.

The engine's clock and random numbers are replaced by ours while a cluster lives; nothing else of it is changed.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pysyncobj.syncobj
import pytest
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated
from pysyncobj.journal import Journal
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raftfs.consensus.engine import engine_time
from raftfs.testing.invariants import LogEntry
from raftfs.testing.virtual import Clock, Network

from .cluster import Cluster

LEADER = 2  # of getStatus()["state"]

type_byte = {"regular": b"\x00", "no-op": b"\x01", "membership": b"\x02"}


@dataclass
class Image:
    """What a journal and its .meta file hold."""

    entries: list[tuple[bytes, int, int]] = field(default_factory=list)  # command, index, term
    term: int = 0
    vote: str | None = None
    commit: int = 1


class Disk:
    """``written`` is what the process wrote (the page cache: survives its death), ``durable`` what a power loss leaves.

    PySyncObj never asks for durability, so only the kernel's own :meth:`write_back` moves one to the other.
    """

    def __init__(self) -> None:
        self.written = Image()
        self.durable = Image()

    def write_back(self) -> None:
        self.durable = copy.deepcopy(self.written)

    def write_back_meta(self) -> None:
        written = self.written
        self.durable.term, self.durable.vote, self.durable.commit = written.term, written.vote, written.commit

    def lose_power(self) -> None:
        self.written = copy.deepcopy(self.durable)


class DiskJournal(Journal):
    """Writes to a :class:`Disk` when and what PySyncObj's FileJournal writes to its file and to its .meta file."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.commit = disk.written.commit
        self.largest_slice = 0

    def add(self, command: bytes, idx: int, term: int) -> None:
        self.disk.written.entries.append((command, idx, term))

    def clear(self) -> None:
        self.disk.written.entries = []

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        del self.disk.written.entries[entryFrom:]

    def deleteEntriesTo(self, entryTo: int) -> None:
        del self.disk.written.entries[:entryTo]

    def __getitem__(self, item: Any) -> Any:
        result = self.disk.written.entries[item]
        if isinstance(item, slice):
            self.largest_slice = max(self.largest_slice, len(result))
        return result

    def __len__(self) -> int:
        return len(self.disk.written.entries)

    def _destroy(self) -> None:
        pass

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self.commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:
        return self.commit

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self.disk.written.term, self.disk.written.vote = term, votedForNodeId
        self.onOneSecondTimer()

    def getCurrentTerm(self) -> int:
        return self.disk.written.term

    def getVotedForNodeId(self) -> str | None:
        return self.disk.written.vote

    def onOneSecondTimer(self) -> None:
        self.disk.written.commit = self.commit


class Wire(Transport):
    """A node's end of the virtual network."""

    def __init__(self, name: str, network: Network[Any]) -> None:
        super().__init__(None, None, [])
        self.name = name
        self.network = network

    def send(self, node: Node, message: Any) -> bool:
        if node.id not in self.network.names:
            return False
        return self.network.send(self.name, node.id, copy.deepcopy(message))


class Replica(SyncObj):
    """Keeps the list of what was put, with the index of the log entry that brought it."""

    def __init__(self, name: str, others: Iterable[str], conf: SyncObjConf, wire: Wire) -> None:
        super().__init__(Node(name), [Node(other) for other in others], conf=conf, transport=wire)
        self.applied: list[tuple[int, Any]] = []

    @replicated
    def put(self, value: Any) -> Any:
        self.applied.append((self.raftLastApplied + 1, value))
        return value

    @replicated
    def fail(self) -> None:
        raise ValueError("a replicated method that raises")


@dataclass
class Proposal:
    value: Any
    answers: list[tuple[Any, int]] = field(default_factory=list)

    def __call__(self, result: Any, reason: int) -> None:
        self.answers.append((result, reason))

    @property
    def acknowledged(self) -> bool:
        return any(reason == FAIL_REASON.SUCCESS for _, reason in self.answers)

    @property
    def refused(self) -> bool:
        return any(reason != FAIL_REASON.SUCCESS for _, reason in self.answers)

    @property
    def lost(self) -> bool:
        return self.refused


class PlainCluster(Cluster):
    """``configuration`` is PySyncObj's."""

    def __init__(self, names: Iterable[str], clock: Clock, **configuration: Any) -> None:
        super().__init__(names, clock)
        self.configuration = configuration
        self.disks = {name: Disk() for name in self.names}
        self.wires: dict[str, Wire] = {}
        self.start_all()

    def _deliver(self, source: str, target: str, message: Any) -> None:
        if target in self.nodes:
            self.wires[target]._onMessageReceived(Node(source), message)

    def _announce(self, name: str, peer: str, up: bool) -> None:
        if name in self.nodes:
            wire = self.wires[name]
            (wire._onNodeConnected if up else wire._onNodeDisconnected)(Node(peer))

    def start(self, name: str) -> None:
        journal = DiskJournal(self.disks[name])
        wire = self.wires[name] = Wire(name, self.network)
        conf = SyncObjConf(autoTick=False, **self.configuration)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pysyncobj.syncobj, "createJournal", lambda path: journal)
            self.nodes[name] = Replica(name, [n for n in self.names if n != name], conf, wire)

    def crash(self, name: str, *, power: bool = False) -> None:
        node = self.nodes.pop(name)
        self.network.isolate(name)
        close_notifier(node)
        if power:
            self.disks[name].lose_power()

    def tick(self, *names: str) -> None:
        for name in names:
            self.nodes[name].doTick(0.0)

    def put(self, name: str, value: Any) -> Proposal:
        """It is taken up at the node's next tick."""
        proposal = Proposal(value)
        self.nodes[name].put(value, callback=proposal)
        return proposal

    def is_leader(self, name: str) -> bool:
        return bool(self.nodes[name].getStatus()["state"] == LEADER)

    def term(self, name: str) -> int:
        return int(self.nodes[name].raftCurrentTerm)

    def values(self, name: str) -> list[Any]:
        return [value for _, value in self.nodes[name].applied]

    def log(self, name: str, first: int = 1) -> list[LogEntry]:
        entries = self.disks[name].written.entries
        skipped = max(0, first - entries[0][1])
        return [(index, term, data) for data, index, term in entries[skipped:]]

    def applied_index(self, name: str) -> int:
        return int(self.nodes[name].raftLastApplied)

    def disk_step(self, name: str) -> None:
        self.disks[name].write_back()

    def inject(self, source: str, target: str, message: dict[str, Any]) -> None:
        """Hand a message to a node as if it came from ``source``."""
        self._deliver(source, target, message)


def close_notifier(engine: Any) -> None:
    """PySyncObj leaves the two ends of a pipe open for ever when it is destroyed."""
    notifier = getattr(engine, "_SyncObj__pipeNotifier", None)
    if notifier is not None:
        os.close(notifier._PipeNotifier__pipeR)
        os.close(notifier._PipeNotifier__pipeW)


@contextmanager
def virtual_engine(seed: int = 1) -> Iterator[Clock]:
    """PySyncObj on virtual time and seeded random numbers, for as long as the context lasts."""
    clock = Clock()
    with engine_time(clock), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pysyncobj.syncobj, "random", random.Random(seed))
        yield clock


PlainMaker = Callable[..., PlainCluster]
