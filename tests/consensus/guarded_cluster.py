"""Our members, several in one process, under virtual time and a virtual network: engine, guard, journal and barriers.

What ``consensus.member`` does with threads and an event loop happens here when the schedule says so: a turn
(:meth:`GuardedCluster.tick`), a step of the journal's disk (:meth:`GuardedCluster.disk_step`), a death in the middle of
it. The journal's files are real.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from raftfs.config import RaftTimes
from raftfs.consensus import messages as m
from raftfs.consensus import segments
from raftfs.consensus.barriers import Barriers
from raftfs.consensus.engine import Engine
from raftfs.consensus.guard import NO_OP, Guard
from raftfs.consensus.journal import Flush, Journal
from raftfs.consensus.membership import CONFIGURATION, Configuration, decode_configuration
from raftfs.consensus.rejoin import STAGES, Mark, Rejoin, Stage
from raftfs.consensus.termfile import TermFile
from raftfs.testing.invariants import LogEntry
from raftfs.testing.virtual import Clock

from .cluster import ELECTION_S, Cluster

SECTOR_BYTES = 64  # what a torn write loses or keeps as one; smaller than real ones, as the entries are


@dataclass
class Proposal:
    value: str
    refused: bool = False
    acknowledged: bool = False
    lost: bool = False
    """another entry took its place: it was certainly not applied"""


@dataclass
class Read:
    """A barrier: ``promised`` were acknowledged before it was asked for."""

    promised: list[str]
    index: int | None = None
    answered: bool = False


@dataclass
class State:
    """The state machine on a node's disk: what it applied, and up to where that survives a power loss."""

    applied: list[LogEntry] = field(default_factory=list)
    durable: int = 0
    mark: Mark = field(default_factory=Mark)
    damages: int = 0

    def values(self) -> list[str]:
        return [data[1:].decode() for _, _, data in self.applied if data != NO_OP and data[0] != CONFIGURATION]

    def configuration(self, bootstrap: Configuration) -> tuple[int, Configuration]:
        for index, _, data in reversed(self.applied):
            if data[0] == CONFIGURATION:
                return index, decode_configuration(data)
        return 0, bootstrap


class Member:
    def __init__(self, cluster: GuardedCluster, name: str, state: State, journal: Journal) -> None:
        self.state = state
        self.journal = journal
        self.flush: Flush | None = None
        self.open: dict[int, list[tuple[int, Proposal]]] = {}
        self.reads: list[Read] = []

        def emit(peer: str, message: m.Message) -> None:
            cluster.network.send(name, peer, m.encode(message))

        index, configuration = state.configuration(Configuration.of(cluster.voters))
        self.engine = cluster.engine(
            me=name, base=configuration, base_index=index, journal=journal, applied_index=len(state.applied),
            times=cluster.times, emit=emit, clock=cluster.clock, rng=random.Random(f"{name}{state.damages or ''}"),
            guard=cluster.guard, mark=state.mark, rejoin=cluster.rejoin,
        )  # fmt: skip
        self.barriers = cluster.barriers(
            me=name, engine=self.engine, emit=emit, clock=cluster.clock,
            patience_s=4 * cluster.times.heartbeat_ms / 1000,
        )  # fmt: skip

    def receive(self, peer: str, raw: bytes) -> None:
        message = m.decode(raw)
        if isinstance(message, m.Probe):
            self.barriers.receive_probe(peer, message)
        elif isinstance(message, m.ProbeAck):
            self.barriers.receive_probe_ack(peer, message)
        elif isinstance(message, m.ReadIndexRequest):
            self.barriers.receive_request(peer, message)
        elif isinstance(message, m.ReadIndexAnswer):
            self.barriers.receive_answer(peer, message)
        else:
            self.engine.receive(peer, message)

    def tick(self) -> None:
        self.engine.tick()
        self.engine.rejoin.tick(len(self.state.applied))
        self.barriers.tick()

    def apply(self, limit: int) -> None:
        for index in range(len(self.state.applied) + 1, limit + 1):
            term = self.journal.term(index)
            self.state.applied.append((index, term, self.journal.data(index)))
            for proposed_term, proposal in self.open.pop(index, ()):
                proposal.acknowledged = proposed_term == term
                proposal.lost = proposed_term != term

    def take_disk_step(self) -> None:
        """End the write that is under way, and begin the next one if something waits."""
        if self.flush is not None:
            self.journal.write(self.flush)
            self.journal.complete(self.flush)
            self.engine.guard.durable()
        self.flush = self.journal.take()

    def close(self) -> None:
        self.engine.close()


class GuardedCluster(Cluster):
    """``directory`` holds each node's files. ``lazy_disk``: writes take place in :meth:`disk_step` alone; otherwise all
    that waits is durable before anything else happens, except on the nodes in ``held_disks``. ``voters``: who is a
    member at first (default: all)."""

    def __init__(
        self,
        names: Iterable[str],
        clock: Clock,
        directory: Path,
        *,
        voters: Iterable[str] | None = None,
        engine: type[Engine] = Engine,
        guard: type[Guard] = Guard,
        rejoin: type[Rejoin] = Rejoin,
        barriers: type[Barriers] = Barriers,
        journal: type[Journal] = Journal,
        damages: bool = False,
        lazy_disk: bool = False,
        apply_what_is_not_durable: bool = False,
        forget_votes: bool = False,
        **journal_options: int,
    ) -> None:
        super().__init__(names, clock)
        self.directory = directory
        self.times = RaftTimes()
        self.voters = sorted(voters or names)
        self.engine = engine
        self.guard = guard
        self.rejoin = rejoin
        self.barriers = barriers
        self.journal = journal
        self.damages = damages
        self.lazy_disk = lazy_disk
        self.apply_what_is_not_durable = apply_what_is_not_durable
        self.forget_votes = forget_votes
        self.held_disks: set[str] = set()
        self.journal_options = journal_options
        self.states = {name: State() for name in self.names}
        self.start_all()

    def start(self, name: str) -> None:
        state = self.states[name]
        directory = self.directory / name
        journal = self.journal(directory, commit_floor=len(state.applied), **self.journal_options)
        self.nodes[name] = Member(self, name, state, journal)
        self._settle(name)

    def crash(self, name: str, *, power: bool = False, torn: random.Random | None = None) -> None:
        """With ``torn``, some parts of a write that is under way are on the disk."""
        node: Member = self.nodes.pop(name)
        self.network.isolate(name)
        self.network.forget(name)
        if torn is not None and node.flush is not None:
            _write_parts(self.directory / name, node.flush, torn)
        node.close()
        if power:
            del node.state.applied[node.state.durable :]
            if self.forget_votes:
                (self.directory / name / "term").unlink()
                TermFile.create(self.directory / name / "term")

    def damage(self, name: str, *, log: bool = False, state: bool = False, term: bool = False) -> None:
        """A stopped node loses parts of its data and is repaired as ``raftfs fsck --repair`` does it: without its log
        it has nothing beyond its state; a whole log (which is never cut here) makes the state anew."""
        directory, kept = self.directory / name, self.states[name]
        stages: list[Stage] = ["terms" if term else "log" if log else "state", kept.mark.stage or "state"]
        kept.mark.keep(min(stages, key=STAGES.index))
        kept.damages += 1
        if term:
            (directory / "term").unlink()
            TermFile.create(directory / "term")
        if state:
            kept.applied.clear()
        if log:
            for path in directory.glob("*.segment"):
                path.unlink()
            if kept.applied:
                Journal.begin_at(directory, *kept.applied[-1])
        kept.durable = len(kept.applied)

    def _deliver(self, source: str, target: str, message: bytes) -> None:
        if target in self.nodes:
            self.nodes[target].receive(source, message)
            self._settle(target)

    def _announce(self, name: str, peer: str, up: bool) -> None:
        if name in self.nodes:
            guard = self.nodes[name].engine.guard
            (guard.connected if up else guard.disconnected)(peer)
        if not up and peer in self.nodes:
            self.nodes[peer].engine.elections.lost(name)  # the other end sees the connection close

    def tick(self, *names: str) -> None:
        for name in names:
            self.nodes[name].tick()
            self._settle(name)

    def disk_step(self, name: str) -> None:
        self.nodes[name].take_disk_step()
        self._apply(name)

    def sync(self, name: str) -> None:
        """Let the disk do all that waits."""
        node: Member = self.nodes[name]
        node.take_disk_step()
        while node.flush is not None:
            node.take_disk_step()
        self._apply(name)

    def _settle(self, name: str) -> None:
        if not self.lazy_disk and name not in self.held_disks:
            self.sync(name)
        self._apply(name)

    def _apply(self, name: str) -> None:
        engine = self.nodes[name].engine
        self.nodes[name].apply(engine.commit_index if self.apply_what_is_not_durable else engine.safe_index)

    def put(self, name: str, value: str) -> Proposal:
        """In the log at once, or refused at once."""
        proposal = Proposal(value)
        node: Member = self.nodes[name]
        index = node.engine.propose(value.encode())
        if index is None:
            proposal.refused = True
        else:
            node.open.setdefault(index, []).append((node.engine.term, proposal))
        self._settle(name)
        return proposal

    def elect(self, name: str) -> None:
        """The same, with the round of pre-votes before the votes."""
        self.clock.advance(ELECTION_S)
        self.tick(name)
        self.network.drain()
        self.tick(name)
        self.network.drain()
        assert self.is_leader(name)

    def ask(self, name: str, promised: list[str]) -> Read:
        """Ask for a barrier; it is under way at the node's next turn."""
        read = Read(promised)
        node: Member = self.nodes[name]
        node.reads.append(read)

        def answer(index: int | None) -> None:
            read.index, read.answered = index, True

        node.barriers.ask(answer)
        return read

    def is_leader(self, name: str) -> bool:
        return bool(self.nodes[name].engine.is_leader)

    def term(self, name: str) -> int:
        return int(self.nodes[name].engine.term)

    def values(self, name: str) -> list[str]:
        return self.states[name].values()

    def log(self, name: str, first: int = 1) -> list[LogEntry]:
        journal: Journal = self.nodes[name].journal
        run = range(max(first, journal.first_index), journal.last_index + 1)
        return [(index, journal.term(index), journal.data(index)) for index in run]

    def applied_index(self, name: str) -> int:
        return len(self.states[name].applied)

    def inject(self, source: str, target: str, message: m.Message) -> None:
        """Hand a message to a node as if it came from ``source``."""
        self._deliver(source, target, m.encode(message))


def _write_parts(directory: Path, flush: Flush, torn: random.Random) -> None:
    """What a power loss in the middle of a write leaves: any of its sectors, of the part that was being written."""
    number, offset, buffers = flush.parts[0]
    data = b"".join(buffers)
    fd = os.open(segments.segment_path(directory, number), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for start in range(0, len(data), SECTOR_BYTES):
            if torn.random() < 0.5:
                os.pwrite(fd, data[start : start + SECTOR_BYTES], offset + start)
    finally:
        os.close(fd)


GuardedMaker = Callable[..., GuardedCluster]
