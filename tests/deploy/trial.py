"""The life of a cluster on machines that boot, by the playbooks of ``deploy/``, while clients work: one phase after the
other, each timed, and what the clients saw judged in the end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from raftfs import AsyncClient
from raftfs.testing import history

from . import judge
from .controller import Controller, Hosts, Recap
from .fleet import Fleet, Machine
from .machines import FRONTENDS, NODES
from .traffic import Cluster, Traffic
from .trust import Trust
from .wheels import Wheels

CLUSTER: Final = "deploy-test"
CLIENT_PORT: Final = 7401
FRONTEND_PORT: Final = 7400
SETTLE_S_MAX: Final = 120.0
OPERATIONS_MIN: Final = 2000
_POLL_S: Final = 0.2

State = Literal["passed", "failed", "not run"]


@dataclass
class Phase:
    """``write_s`` and ``read_s``: the longest time in which no write was acknowledged, and no read answered, while it
    lasted; None where no client worked yet."""

    name: str
    state: State = "not run"
    duration_s: float = 0.0
    write_s: float | None = None
    read_s: float | None = None
    said: str = ""


@dataclass
class Report:
    """What a trial was and came to."""

    seed: int
    phases: list[Phase] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    duration_s: float = 0.0
    folder: str = ""

    @property
    def passed(self) -> bool:
        return not self.complaints and all(phase.state == "passed" for phase in self.phases)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def text(self) -> str:
        rows = [("phase", "", "duration, s", "no write for, s", "no read for, s")]
        rows += [
            (phase.name, phase.state, f"{phase.duration_s:.1f}", _seconds(phase.write_s), _seconds(phase.read_s))
            for phase in self.phases
        ]
        lines = [judge.table(rows), f"operations: {self.outcomes}; the whole took {self.duration_s:.0f} s"]
        lines += [f"COMPLAINT: {complaint}" for complaint in self.complaints]
        lines.append(f"logs and history: {self.folder}" if self.folder else "nothing was kept")
        lines.append(f"deploy test: {'passed' if self.passed else 'FAILED'} (seed {self.seed})")
        return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def say(text: str) -> None:
    """What is going on, for whoever waits."""
    print(f"deploy test: {text}", file=sys.stderr, flush=True)


class Wrong(Exception):
    """Something is not as a phase left it, or found it."""


class Trial:
    """What all phases share. ``places``: the machine of each member and frontend. A member keeps its name (that of its
    first machine) when another machine takes its place."""

    def __init__(self, fleet: Fleet, wheels: Wheels, folder: Path, seed: int) -> None:
        self.fleet, self.wheels, self.folder = fleet, wheels, folder
        self.report = Report(seed)
        self.trust = Trust(folder / "pki", folder / "trusted.crt")
        variables = {
            "raftfs_cluster_id": CLUSTER,
            "raftfs_wheel": str(wheels.first),
            "raftfs_wheelhouse": str(wheels.house),
            "raftfs_tls_dir": str(self.trust.folder),
            "raftfs_tls_command": str(Path(sys.executable).with_name("raftfs")),
            # The containers share this machine's clock, which is not theirs to set.
            "raftfs_check_time_sync": False,
        }
        self.controller = Controller(fleet, folder / "playbooks", variables)
        self.members, self.frontends = list(NODES), list(FRONTENDS)
        self.places: dict[str, str] = {}
        self.cluster = Cluster({}, self.members, self.frontends, self.trust.context)
        for name in [*NODES, *FRONTENDS]:
            self.place(name, name)
        self.traffic: Traffic | None = None

    def place(self, name: str, machine: str) -> None:
        """From now on this member (or frontend) is on this machine."""
        self.places[name] = machine
        port = FRONTEND_PORT if name in self.frontends else CLIENT_PORT
        self.cluster.urls[name] = f"https://{self.fleet.machines[machine].address}:{port}"

    def machine(self, name: str) -> Machine:
        return self.fleet.machines[self.places[name]]

    def connect(self) -> AsyncClient:
        """A client of the library, as users make it."""
        return AsyncClient(self.cluster.endpoints, ca=self.trust.bundle)

    async def play(
        self, playbook: str, *options: str, nodes: Sequence[str] | None = None, hosts: Hosts | None = None, **more: Any
    ) -> Recap:
        """Run a playbook on the machines of the members (or of these ``nodes``), and of the frontends. ``hosts``:
        variables of single ones."""
        own = {
            name: {"ansible_host": self.machine(name).address, **(hosts or {}).get(name, {})} for name in self.places
        }
        return await self.controller.play(playbook, nodes or self.members, self.frontends, *options, hosts=own, **more)

    async def begin_traffic(self) -> None:
        self.trust.refresh()
        self.traffic = Traffic(self.cluster, self.report.seed, self.connect)
        await self.traffic.begin()

    @property
    def working(self) -> Traffic:
        """The clients, from the first deploy on."""
        assert self.traffic is not None
        return self.traffic

    async def leader(self) -> str:
        """Raises Wrong if there is none for long."""
        return str(await self.until("somebody leads", self.working.watch.leader))

    async def until(self, what: str, asked: Callable[[], Awaitable[Any]]) -> Any:
        """Wait until an answer is true, and return it. Raises Wrong."""
        end = time.monotonic() + SETTLE_S_MAX
        while not (answer := await asked()):
            if time.monotonic() > end:
                raise Wrong(f"not in {SETTLE_S_MAX:g} s: {what}")
            await asyncio.sleep(_POLL_S)
        return answer

    async def more(self, count: int = 20) -> None:
        """Wait until so many more writes are acknowledged."""
        goal = self.working.written + count

        async def there() -> bool:
            return self.working.written >= goal

        await self.until(f"{count} more acknowledged writes", there)

    async def run(self, phases: list[tuple[str, Callable[[Trial], Awaitable[None]]]]) -> Report:
        """All phases, up to the first that fails, and the judgement."""
        begin = time.monotonic()
        self.report.phases = [Phase(name) for name, _ in phases]
        try:
            for phase, (_, do) in zip(self.report.phases, phases, strict=True):
                if not await self._carry_out(phase, do):
                    break
            if self.traffic is not None:
                await self._judge()
        finally:
            if self.traffic is not None:
                await self.traffic.close()
        self.report.duration_s = time.monotonic() - begin
        return self.report

    async def _carry_out(self, phase: Phase, do: Callable[[Trial], Awaitable[None]]) -> bool:
        begin, had_traffic = time.monotonic(), self.traffic is not None
        say(f"{phase.name} ...")
        try:
            await do(self)
        except Exception as error:  # whatever went wrong: the rest cannot be done, and what was seen is judged
            phase.state, phase.said = "failed", f"{type(error).__name__}: {error}"
            self.report.complaints.append(f"{phase.name}: {phase.said}")
        else:
            phase.state = "passed"
        end = time.monotonic()
        phase.duration_s = end - begin
        if had_traffic:
            seen = self.working.interruption(begin, end)
            phase.write_s, phase.read_s = seen.write_s, seen.read_s
        waits = f"no write for {_seconds(phase.write_s)} s, no read for {_seconds(phase.read_s)} s"
        say(f"{phase.name}: {phase.state} in {phase.duration_s:.1f} s; {waits}")
        return phase.state == "passed"

    async def _judge(self) -> None:
        """Let the clients end, read everything everywhere, and see whether what they saw can have been."""
        traffic, found = self.working, self.report.complaints
        whole = not found
        await traffic.end()
        if whole:
            found += await traffic.watch.settled(SETTLE_S_MAX)
            failed = traffic.notes.outcomes["fail"]
            await traffic.read_all()
            if late := traffic.notes.outcomes["fail"] - failed:
                found.append(f"{late} reads failed in the end")
            found += await traffic.watch.quiet()
        found += traffic.watch.odd
        found += judge.complaints(traffic.notes, OPERATIONS_MIN if whole else 0)
        self.report.outcomes = dict(traffic.notes.outcomes)
        history.save(traffic.notes.history, self.folder / "history.jsonl")
        history.save(traffic.notes.refused, self.folder / "refused.jsonl")

    def keep_journals(self) -> None:
        """The logs of all machines that ever ran, for whoever looks for the reason."""
        for machine in self.fleet.machines.values():
            if text := machine.journal():
                (self.folder / f"{machine.name}.journal").write_text(text)
