"""One simulation: a cluster, its clients and the nemesis, in phases, with the judge's word at the end."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from raftfs import fsync
from raftfs.config import MemberConfig, NodeConfig, RaftTimes
from raftfs.consensus.engine import engine_time
from raftfs.consensus.journal import Journal
from raftfs.consensus.parts import LogSizes, Parts
from raftfs.consensus.roster import Roster
from raftfs.testing.invariants import Violation
from raftfs.testing.simulation.client import Client, Ways
from raftfs.testing.simulation.disk import SimulatedJournal, SimulatedKernel
from raftfs.testing.simulation.faults import Nemesis
from raftfs.testing.simulation.judge import Judge
from raftfs.testing.simulation.loop import VirtualLoop
from raftfs.testing.simulation.names import ForgetsNames
from raftfs.testing.simulation.network import Network
from raftfs.testing.simulation.node import Flows, Machine, Node
from raftfs.testing.simulation.operator import Operator, member
from raftfs.testing.simulation.rest import Rest

_SAFETY_S: Final = (1.5, 3.5)
_LONGER: Final = 2.0  # a change of the members takes longer than other things
_BACKFILL_S: Final = 0.2  # nobody comes to vote before it was looked for chunks
_LIVE_S_MAX: Final = 20.0
_EARLY: Final = 0.25  # part of the seeds in which the faults begin before the cluster is formed
_CHANGES: Final = 0.25  # part of the seeds in which members come and go
_RESTS: Final = 0.4  # part of the seeds that try what a cluster at rest has to bear
_TIMES: Final = RaftTimes(heartbeat_ms=100, election_timeout_ms_min=300, election_timeout_ms_max=1000)
_LOG_SIZES: Final = (LogSizes(768, 2), LogSizes(2048, 2), LogSizes(64 * 1024, 4))
_TAIL_BYTES: Final = 2048
_APPEND_BYTES: Final = (100, 600, 2**20)
"""of entries in one message: so few that what a leader has to send takes several, as with large entries"""
_IN_FLIGHT_BYTES: Final = 1024
_CONVERGED_S_MAX: Final = 300.0


@dataclass(frozen=True)
class Report:
    """What a run was. ``trace_hash`` is equal for two runs of one seed on the same code."""

    seed: int
    nodes: int
    virtual_s: float
    steps: int
    acknowledged: int
    operations: int
    elections: int
    trace_hash: str
    seen: dict[str, int]
    """what went wrong → how often (``KINDS`` of ``coverage``)"""


class SimulationFailed(AssertionError):
    """A run that broke a promise: ``seed`` repeats it. ``rule`` names what was broken, ``plant`` what was planted."""

    def __init__(self, seed: int, rule: str, detail: str, plant: str | None = None) -> None:
        super().__init__(seed, rule, detail, plant)
        self.seed, self.rule, self.detail, self.plant = seed, rule, detail, plant

    def __str__(self) -> str:
        planted = "" if self.plant is None else f' --plant "{self.plant}"'
        again = f"python -m raftfs.testing.simulate --seed {self.seed} --trace{planted}"
        return f"seed {self.seed}: {self.detail}\nagain: {again}"


@dataclass(frozen=True)
class Plant:
    """A fault in the product, planted to see that it is found. ``forgets``: syncs of files with this suffix do
    nothing; ``forgets_names``: such names are not made durable. ``keys``: whether clients send idempotency keys.
    ``harm``: the kinds of faults that bring it out, if it needs few of many (methods of ``Nemesis``). ``trial``: what
    each seed tries at rest (a method of ``Rest``). ``slow``: how slow disks may be, as factors; ``append_bytes``: of
    entries in one message. ``changes``: the kinds of changes of the members (methods of ``Operator``), if it needs any;
    ``roster``: what looks at identities."""

    parts: Parts = field(default_factory=Parts)
    forgets: str | None = None
    forgets_names: ForgetsNames = lambda _path: False
    keys: bool = True
    harm: tuple[str, ...] = ()
    trial: str | None = None
    slow: tuple[float, ...] = ()
    append_bytes: int | None = None
    changes: tuple[str, ...] = ()
    roster: type[Roster] = Roster


class Simulation:
    """A whole cluster in this process on virtual time, network and disks, everything decided by ``seed``.

    ``run`` raises SimulationFailed, or returns a Report. One simulation runs in a process at a time: while it does,
    the process's engine clock and its fsync are simulated ones. ``trace``: where each event is written, a line each.
    """

    def __init__(
        self, seed: int, *, nodes: int | None = None, plant: Plant | None = None, trace: TextIO | None = None
    ) -> None:
        self.seed = seed
        self._rng = random.Random(f"raftfs {seed}")
        count = self._rng.choice((3, 3, 3, 3, 5))
        self._names = [f"n{number + 1}" for number in range(nodes or count)]
        self._plant = plant or Plant()
        self._rng_of_changes = random.Random(f"raftfs members {seed}")
        changes = plant is None and self._rng_of_changes.random() < _CHANGES
        self._changes = changes or bool(self._plant.changes)
        self._operator: Operator | None = None
        self._early = plant is None and random.Random(f"raftfs formation {seed}").random() < _EARLY
        self._out = trace
        self._hash = hashlib.blake2b(digest_size=16)
        self._loop: VirtualLoop
        self._nodes: dict[str, Node] = {}
        self._clients: list[Client] = []

    def run(self) -> Report:
        with ExitStack() as stack:
            stack.enter_context(_without_collections())
            self._loop = stack.enter_context(_virtual_loop())
            stack.enter_context(engine_time(self._loop.time))
            stack.enter_context(fsync.simulated(SimulatedKernel()))
            if self._out is None:
                stack.enter_context(_quiet())
            self._build(Path(stack.enter_context(_memory_directory())))
            try:
                self._loop.run_until_complete(self._phases())
                self._judge.finish()
            except BaseException as error:
                raise self._failed(self._loop.failure or error) from error
            finally:
                for node in self._nodes.values():
                    node.stop()
        return self._report()

    def _failed(self, error: BaseException) -> BaseException:
        if isinstance(error, Violation):
            return SimulationFailed(self.seed, error.rule, str(error))
        if isinstance(error, Exception):
            return SimulationFailed(self.seed, "the code does not raise", f"{type(error).__name__}: {error}")
        return error

    # --- building ------------------------------------------------------------------------------------------------

    def _random(self) -> random.Random:
        return random.Random(self._rng.random())

    def _build(self, root: Path) -> None:
        loop, rng = self._loop, self._random()
        self._judge = Judge(self._fail)
        self._network = Network(loop, self._names, self._random(), self._trace)
        self._network.on_violation = self._fail
        self._ways = Ways(self._network.passes)
        members = [member(name) for name in self._names]
        sizes, flows = (
            rng.choice(_LOG_SIZES),
            Flows(self._plant.append_bytes or rng.choice(_APPEND_BYTES), _IN_FLIGHT_BYTES),
        )
        self._network.in_flight_bytes_max = 3 * _IN_FLIGHT_BYTES
        parts = _on_simulated_disks(self._plant.parts)

        def make(name: str, members: list[MemberConfig], rng: random.Random) -> Node:
            machine = Machine(loop, root / name, rng)
            machine.disk.forgets, machine.disk.forgets_names = self._plant.forgets, self._plant.forgets_names
            config = NodeConfig(
                id=name,
                cluster_id="simulated",
                data_dir=root / name,
                members=members,
                times=_TIMES,
                backfill_period_s=_BACKFILL_S if self._changes else 30.0,
            )
            return Node(
                config, machine, self._network, self._judge, parts, sizes, flows, self._trace,
                roster=self._plant.roster, identities=self._changes,
            )  # fmt: skip

        for name in self._names:
            self._nodes[name] = make(name, members, self._random())
        paths = [f"/file{number}" for number in range(rng.choice((1, 2, 3)))]
        self._clients = [
            Client(
                f"c{number + 1}", loop, self._nodes, self._judge, self._ways, self._random(), self._trace, paths,
                keys=self._plant.keys,
            )
            for number in range(rng.choice((3, 4, 5)))
        ]  # fmt: skip
        self._nemesis = Nemesis(
            loop,
            self._nodes,
            self._network,
            self._ways,
            self._random(),
            self._trace,
            self._plant.harm,
            self._plant.slow,
        )
        self._rest = Rest(loop, self._nodes, self._network, self._random(), _TIMES, self._trace)
        self._safety_s = rng.uniform(*_SAFETY_S)
        if self._changes:
            own = self._rng_of_changes
            self._safety_s *= _LONGER
            self._operator = Operator(
                loop, self._nodes, self._network, own, self._trace,
                lambda name, members: make(name, members, random.Random(own.random())), self._plant.changes,
            )  # fmt: skip

    # --- phases --------------------------------------------------------------------------------------------------

    async def _phases(self) -> None:
        for node in self._nodes.values():
            node.start()
        running = [asyncio.ensure_future(client.run()) for client in self._clients]
        if self._early:
            self._loop.seen["formation among faults"] += 1
        else:
            await asyncio.sleep(0.5)
            if self._operator is not None:
                await self._operator.formed()
        doing = [self._nemesis.run]
        if self._operator is not None:
            doing.append(self._operator.run)
        harm = [asyncio.ensure_future(one()) for one in doing]
        await asyncio.sleep(self._safety_s)
        for one in harm:
            one.cancel()
        for outcome in await asyncio.gather(*harm, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        self._trace("faults end")
        if self._early and self._operator is not None:
            self._nemesis.heal()
            await self._operator.form_at_last(self._judge)
        await self._become_live()
        for client in self._clients:
            client.stopped = True
        await asyncio.gather(*running)
        serving = list(self._nodes.values())
        if self._operator is not None:
            ids = (await self._operator.finish()).ids
            serving = [node for node in serving if node.name in ids]
        await self._converge(serving)
        for node in self._nodes.values():
            self._judge.ended(node.name, node.oldest_call_s(), self._loop.now_s)
        if self._operator is not None:
            await self._rest.stay_quiet(serving)
        elif self._rng.random() < _RESTS or self._plant.trial is not None:
            await self._rest.run(self._plant.trial)

    async def _become_live(self) -> None:
        """Faults have stopped: soon a write succeeds."""
        ends_s = self._loop.now_s + _LIVE_S_MAX
        while self._loop.now_s < ends_s:
            self._nemesis.heal()  # undoing a fault late may have left something behind
            if await self._clients[0].write("/live", timeout_s=2.0) and all(node.up for node in self._nodes.values()):
                return
        raise Violation("liveness", f"no write succeeded in {_LIVE_S_MAX:g} s after the faults had stopped")

    async def _converge(self, nodes: Sequence[Node]) -> None:
        """All of them come to the same state. Who is far behind may take long, as little is in flight here at a time;
        it comes nearer all the while."""
        lowest, ends_s, last_s = -1, self._loop.now_s + _LIVE_S_MAX, self._loop.now_s + _CONVERGED_S_MAX
        while self._loop.now_s < min(ends_s, last_s):
            await asyncio.sleep(0.2)
            reached = [node.consensus.applied_index if node.up else -1 for node in nodes]
            if min(reached) == max(reached) >= 0:
                return
            if min(reached) > lowest:
                lowest, ends_s = min(reached), self._loop.now_s + _LIVE_S_MAX
        raise Violation("liveness", "the nodes did not come to the same index")

    # --- noting --------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        if self._loop.failure is None:
            self._loop.failure = error

    def _trace(self, *event: Any) -> None:
        line = f"{self._loop.now_s - 1000:.6f} " + " ".join(map(str, event))
        self._hash.update(line.encode())
        if self._out is not None:
            print(line, file=self._out)

    def _report(self) -> Report:
        return Report(
            seed=self.seed,
            nodes=len(self._names),
            virtual_s=self._loop.now_s - 1000,
            steps=self._loop.steps,
            acknowledged=sum(client.acknowledged for client in self._clients),
            operations=len(self._judge.history),
            elections=len(self._judge.checker.leaders),
            trace_hash=self._hash.hexdigest(),
            seen=dict(sorted(self._loop.seen.items())),
        )


def _on_simulated_disks(parts: Parts) -> Parts:
    """The journal, or one that lacks a rule, on a disk that may be full, and with little in memory."""
    original = parts.journal

    def journal(directory: Path, **options: Any) -> Journal:
        make = SimulatedJournal if original is Journal else original
        return make(directory, **options, tail_bytes_max=_TAIL_BYTES)

    return Parts(journal=journal, engine=parts.engine, barriers=parts.barriers, proposals=parts.proposals)


@contextmanager
def _virtual_loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    try:
        yield loop
    finally:
        loop.close()


@contextmanager
def _without_collections() -> Iterator[None]:
    """A collection in the middle would cost time, and end forgotten generators at a moment that no seed decides. What
    was there before is not looked at by the one at the end."""
    before = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if before:
            gc.enable()


@contextmanager
def _memory_directory() -> Iterator[str]:
    """A directory whose fsync costs nothing, where the system has one: power losses are simulated here."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="raftfs-simulation-", dir=memory, ignore_cleanup_errors=True) as directory:
        yield directory


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run_seeds(seeds: Sequence[int], *, plant: Plant | None = None) -> list[Report]:
    """Each seed in turn; raises SimulationFailed at the first one that fails."""
    return [Simulation(seed, plant=plant).run() for seed in seeds]
