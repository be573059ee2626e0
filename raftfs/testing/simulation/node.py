"""One node of the simulation, over all its lives: a machine with a disk and clocks, on which the real parts run.

What ``service.node`` composes is composed here with simulated ends: state machine, consensus and use cases are the real
ones; the transport, the disk, the loop and the clocks are simulated; nobody speaks HTTP.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from contextvars import Context
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raftfs import fsync
from raftfs.chunks import ChunkMissing, ChunkStore, CollectReport
from raftfs.chunks.store import Data
from raftfs.config import MemberConfig, NodeConfig
from raftfs.consensus import Configuration, Consensus, Roster, decode_configuration
from raftfs.consensus.parts import LogSizes, Parts
from raftfs.errors import StorageFull
from raftfs.service.datadir import check_identity
from raftfs.service.members import bootstrap
from raftfs.service.node import StateApplier
from raftfs.service.service import Service
from raftfs.service.snapshots import install
from raftfs.state import Reader, StateMachine
from raftfs.testing.simulation.disk import Disk, SimulatedJournal
from raftfs.testing.simulation.judge import Judge
from raftfs.testing.simulation.loop import Process, ProcessEnded, VirtualLoop
from raftfs.testing.simulation.network import Network, SimulatedTransport

_DIES_INSTALLING = 0.5  # part of the installations of a snapshot that are broken off
_INSTALL_SYNCS = 8
_EPOCH_MS = 1_700_000_000_000


class NoChunks(ChunkStore):
    """A chunk store for small files alone, whose bytes lie in the state: it has no folders, and takes nothing."""

    def __init__(self) -> None:
        """Nothing is made."""

    def put(self, digest: bytes, data: Data, *, verified: bool = False) -> bool:
        raise NotImplementedError("chunks of large files are not simulated")

    def has(self, digest: bytes) -> bool:
        return False

    def get(self, digest: bytes) -> bytes:
        raise ChunkMissing(digest.hex())

    def distrust_ages(self, now_s: float) -> None:
        pass

    def collect(self, is_referenced: Callable[[bytes], bool], grace_s: float, now_s: float) -> CollectReport:
        return CollectReport(0, 0, 0, 0)


@cache
def _fresh_database() -> bytes:
    """What a state machine makes of an empty folder: made once, as it takes longer than all else at a start."""
    with TemporaryDirectory(prefix="raftfs-simulation-") as folder:
        path = Path(folder) / "state.db"
        StateMachine(path).close()
        return path.read_bytes()


class Machine:
    """What survives the death of a process: the disk and the clocks."""

    def __init__(self, loop: VirtualLoop, root: Path, rng: random.Random) -> None:
        self.loop, self.rng = loop, rng
        self.disk = Disk(root / "disk", rng)
        self.rate = 1.0
        self.slowness = 1.0
        self.wall_offset_ms = 0
        self._boot_s = loop.now_s - rng.uniform(10.0, 1000.0)

    def uptime_s(self) -> float:
        return self.loop.now_s - self._boot_s

    def boot(self) -> None:
        """After a power loss its monotonic clock begins anew."""
        self._boot_s = self.loop.now_s - self.rng.uniform(5.0, 20.0)

    def wall_ms(self) -> int:
        return _EPOCH_MS + self.wall_offset_ms + int(self.loop.now_s * 1000)


class Clock:
    """The clocks as the service sees them."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine, self._process = machine, process

    def monotonic(self) -> float:
        return self._process.clock()

    def wall_ms(self) -> int:
        return self._machine.wall_ms()


class WatchedMachine(StateMachine):
    """The state machine, on a disk that may be full, with a judge looking on."""

    def __init__(self, path: Path, node: Node) -> None:
        super().__init__(path)
        self._node = node

    def apply(self, index: int, term: int, commands: Sequence[bytes], configuration: bytes | None = None) -> list[Any]:
        if self._node.machine.disk.full:
            self._node.machine.loop.seen["disk: full for the state"] += 1
            raise StorageFull("no space left on the simulated disk")
        results = super().apply(index, term, commands, configuration)
        self._node.judge.applied(self._node, index, term, commands, results, self.state_hash)
        return results

    def close(self) -> None:
        """Of a process that is dead: nothing is copied any more, and nobody looks at these files again."""
        self._db.close()


@dataclass(frozen=True)
class Flows:
    """Entries' bytes that a leader sends in one message, and has unanswered on one connection."""

    append_bytes: int
    in_flight_bytes: int


class Node:
    """``up`` while a process runs and has started."""

    def __init__(
        self, config: NodeConfig, machine: Machine, network: Network, judge: Judge, parts: Parts,
        sizes: LogSizes, flows: Flows, trace: Callable[..., None], *, roster: type[Roster], identities: bool,
    ) -> None:  # fmt: skip
        """``roster``: says who is talked to; without ``identities``, the members are always the same, and nobody looks
        at their data directories."""
        self._sizes, self._flows, self._roster, self._identities = sizes, flows, roster, identities
        self._emptied = 0
        self.uuid = ""
        self.name, self.machine, self.judge = config.id, machine, judge
        self._config, self._network, self._parts, self._trace = config, network, parts, trace
        self.process: Process | None = None
        self.consensus: Consensus
        self.service: Service
        self.up = False
        self._close = ExitStack()
        self.transport: SimulatedTransport | None = None
        self._calls: dict[asyncio.Future[Any], float] = {}
        """what clients wait for → since when"""

    @property
    def label(self) -> str:
        """Whose promises are looked at: those of a data directory."""
        return f"{self.name}.{self._emptied}" if self._emptied else self.name

    def wipe(self) -> None:
        """Its disk is lost, and it has an empty one."""
        self.crash(power=True)
        self.machine.disk.wipe()
        self._emptied += 1
        self.uuid = ""

    def configure(self, members: list[MemberConfig]) -> None:
        """Another configuration file, from the next start on."""
        self._config = self._config.model_copy(update={"members": members})

    # --- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process on what the disk holds."""
        machine = self.machine
        self._trace("start", self.name)
        self.process = Process(
            machine.loop,
            self.name,
            random.Random(machine.rng.random()),
            started_s=machine.uptime_s(),
            rate=machine.rate,
        )
        self.process.disk = machine.disk
        self.process.slowness = machine.slowness
        self.process.died = self._ended
        self.process.spawn(self._start(self.process)).add_done_callback(self._started, context=self.process.context)

    def _started(self, start: asyncio.Task[None]) -> None:
        error = None if start.cancelled() else start.exception()
        if error is not None and not isinstance(error, ProcessEnded):
            self.judge.node_failed(self.name, error)

    async def _start(self, process: Process) -> None:
        await asyncio.sleep(process.rng.uniform(0.01, 0.3))
        root = self.machine.disk.root
        config = self._config.model_copy(update={"data_dir": root})
        if self._identities:
            rng = self.machine.rng
            self.uuid = check_identity(config, lambda: uuid.UUID(int=rng.getrandbits(128)))
        install(root)
        if not (root / "state.db").exists():
            for suffix in ("-wal", "-sums"):  # of one whose name was lost
                (root / f"state.db{suffix}").unlink(missing_ok=True)
            (root / "state.db").write_bytes(_fresh_database())
        state = WatchedMachine(root / "state.db", self)
        self._close.callback(state.close)
        self.judge.restarted(self.label, state)
        roster = self._read_roster(config, state)
        self.transport = transport = SimulatedTransport(self._network, roster, process)
        self.consensus = Consensus(
            me=self.name,
            configuration=roster.configuration,
            configuration_index=roster.index,
            roster=roster,
            data_dir=root,
            applier=StateApplier(state),
            applied_index=state.applied_index,
            times=config.times,
            transport=transport,  # type: ignore[arg-type]
            clock=process.clock,
            rng=random.Random(process.rng.random()),
            parts=self._parts,
            sizes=self._sizes,
            on_behind=lambda leader: self.service.snapshots.behind(leader),
        )
        self._close.callback(self.consensus._engine.close)
        guard = self.consensus._engine.guard
        guard.append_bytes_max, guard.in_flight_bytes_max = self._flows.append_bytes, self._flows.in_flight_bytes
        await self.consensus.start()
        self.consensus.failed.add_done_callback(self._failed)
        self.service = Service(
            config=config, consensus=self.consensus, transport=transport, chunks=NoChunks(),
            open_reader=lambda: self._open_reader(root), clock=Clock(self.machine, process),
        )  # fmt: skip
        await transport.start()
        await self.service.start()
        process.spawn(self._restart_on_snapshot(process))
        self.up = True
        process.ran = self._look

    def _read_roster(self, config: NodeConfig, state: StateMachine) -> Roster:
        if not self._identities:
            return self._roster(me=self.name, uuid="", configuration=Configuration.of(m.id for m in config.members))
        index, configuration = 0, bootstrap(config.members)
        if state.configuration is not None:
            index, configuration = state.configuration[0], decode_configuration(state.configuration[1])
        founder = self.machine.disk.root / "founder"
        return self._roster(
            me=self.name, uuid=self.uuid, configuration=configuration, index=index,
            founder=founder.exists(), keep_founder=lambda: fsync.write_durably(founder, b""),
        )  # fmt: skip

    async def _restart_on_snapshot(self, process: Process) -> None:
        await self.service.snapshots.ready.wait()
        self._trace("snapshot", self.name)
        self.machine.loop.seen["snapshot installed"] += 1
        self.machine.loop.call_soon(self._begin_anew, process, context=Context())

    def _begin_anew(self, process: Process) -> None:
        if self.process is process:
            self.crash(power=False)
            if not self._network.calm and self.machine.rng.random() < _DIES_INSTALLING:
                self._die_installing()
            self.start()

    def _die_installing(self) -> None:
        """In the middle of it, or soon afterwards."""
        loop, rng = self.machine.loop, self.machine.rng
        loop.seen["die installing"] += 1
        if rng.random() < 0.5:
            self.machine.disk.ends_in = rng.randrange(_INSTALL_SYNCS)
        else:
            loop.call_later(rng.uniform(0.3, 1.0), lambda: self.crash(power=True))
        loop.call_later(rng.uniform(1.0, 2.0), self.start_again)

    def start_again(self) -> None:
        """If it does not run."""
        if self.process is None:
            self.start()

    def _failed(self, failed: asyncio.Future[BaseException]) -> None:
        if not failed.cancelled():
            self.judge.node_failed(self.name, failed.result())

    def _look(self) -> None:
        self.judge.look(self)

    def changed(self) -> bool:
        """Whether its log or term may have changed since this was asked last."""
        journal = self.consensus._journal
        if not isinstance(journal, SimulatedJournal):
            return True
        touched, journal.touched = journal.touched, False
        return touched

    def crash(self, *, power: bool) -> None:
        """The process is killed; with ``power`` the machine goes out, and forgets what was not synced."""
        process = self.process
        if process is None:
            return
        self._end_jobs(process)
        process.die()
        self._bury(power=power)

    def _end_jobs(self, process: Process) -> None:
        """What was under way in threads is done, or not, or half of it."""
        for job in list(process.jobs.values()):
            if process.alive and process.rng.random() < 0.5:
                self.machine.disk.ends_in = process.rng.choice((0, 0, 1, None))
                with suppress(ProcessEnded, StorageFull, OSError):
                    process.context.run(job.work)
        self.machine.disk.ends_in = None

    def _ended(self) -> None:
        """In the middle of whatever it was doing."""
        self.machine.loop.call_soon(self._found_dead, self.process, context=Context())

    def _found_dead(self, process: Process | None) -> None:
        if self.process is process and process is not None:
            self._bury(power=self.machine.rng.random() < 0.7)

    def _bury(self, *, power: bool) -> None:
        process = self._forget(power=power)
        torn = self.machine.disk.torn
        self.machine.disk.survive(power=power)
        self.machine.loop.seen["disk: file torn"] += self.machine.disk.torn - torn
        if power:
            self.machine.boot()
        self._close_files(process)
        self.machine.disk.clean()

    def stop(self) -> None:
        """The simulation is over."""
        if self.process is not None:
            self.process.alive = False
            self._close_files(self._forget(power=False))

    def _forget(self, *, power: bool) -> Process:
        process, self.process = self.process, None
        assert process is not None
        self._trace("power lost" if power else "killed", self.name)
        self.up = False
        if self.transport is not None and self.transport is self._network.members.get(self.name):
            self._network.process_died(self.transport, power=power)
        for call in self._calls:
            if not call.done():
                call.set_exception(ConnectionResetError(f"{self.name} died"))
        self._calls.clear()
        return process

    def _close_files(self, process: Process) -> None:
        """The folder in which they lie belongs to nobody any more."""
        process.bury()
        self._close.close()
        self.transport = None

    def _open_reader(self, root: Path) -> Reader:
        reader = Reader(root / "state.db")
        self._close.callback(reader.close)
        return reader

    def oldest_call_s(self) -> float | None:
        """Since when somebody has been waiting for an answer; None if nobody is."""
        return min(self._calls.values(), default=None)

    # --- what clients do -----------------------------------------------------------------------------------------

    def call(self, work: Callable[[Service], Coroutine[Any, Any, Any]]) -> asyncio.Future[Any]:
        """Run a use case in the node. ConnectionRefusedError if it is not up, ConnectionResetError if it dies."""
        answer: asyncio.Future[Any] = self.machine.loop.create_future()
        answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())  # nobody may wait any more
        if self.process is None or not self.up:
            answer.set_exception(ConnectionRefusedError(f"{self.name} is down"))
            return answer
        self._calls[answer] = self.machine.loop.now_s
        task = self.process.spawn(work(self.service))

        def done(task: asyncio.Task[Any]) -> None:
            self._calls.pop(answer, None)
            error = None if task.cancelled() else task.exception()
            if answer.done():
                return
            if task.cancelled():
                answer.set_exception(ConnectionResetError(f"{self.name} broke the call off"))
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

        task.add_done_callback(done, context=self.process.context)
        return answer
