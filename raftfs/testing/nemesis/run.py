"""One run: a cluster comes up, clients work while faults fall, all is healed, and what was seen is judged."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from raftfs.testing import history
from raftfs.testing.linearizability import check, revision_faults
from raftfs.testing.nemesis.clients import Clients
from raftfs.testing.nemesis.doors import Notes
from raftfs.testing.nemesis.faults import Nemesis
from raftfs.testing.nemesis.machine import Claim, check_machine, clean_up
from raftfs.testing.nemesis.network import Network
from raftfs.testing.nemesis.schedule import KINDS, Fault, Kind, draw
from raftfs.testing.nemesis.servers import FRONTEND, Servers
from raftfs.testing.nemesis.watch import Watch

LIVE_S_MAX: Final = 60.0
"""So long after the last fault everything must serve, and be the same everywhere."""

_FAULT_TAIL_S_MAX: Final = 90.0
_OK_PER_S_MIN: Final = 2.0
_REVIVE_S: Final = 1.0

Verdict = Literal["clean", "violated", "undecided"]


@dataclass(frozen=True)
class Options:
    """``folder``: where logs and history go; None for a temporary one, which a clean run removes. ``node_script``: see
    Servers."""

    seed: int
    duration_s: float = 180.0
    nodes: int = 3
    clients: int = 6
    kinds: tuple[Kind, ...] = KINDS
    folder: Path | None = None
    keep: bool = False
    node_script: Path | None = None


@dataclass
class Report:
    """What a run was and came to. ``faults`` counts those carried out; ``complaints`` say what went wrong."""

    seed: int
    duration_s: float
    nodes: int
    verdict: Verdict = "undecided"
    complaints: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    schedule: list[str] = field(default_factory=list)
    parts: int = 0
    terms: int = 0
    states_compared: int = 0
    folder: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(options: Options) -> Report:
    """Needs root. Raises CannotRun where the machine cannot do it, ConfigError for wrong options."""
    check_machine()
    claim = Claim()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="raftfs-nemesis-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"n{number}" for number in range(1, options.nodes + 1)]
    try:
        network = Network(claim.run, [*names, FRONTEND])
        network.up()
        with network.enter_hub():
            servers = Servers(folder, network, names, claim.folder, options.node_script)
            try:
                report = asyncio.run(_Run(options, network, servers).run())
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors  # a fault that could not be carried out
            finally:
                servers.close()
        if report.verdict != "clean" or options.keep or options.folder:
            report.folder = str(folder)
            for name, disk in servers.disks.items():
                shutil.copytree(disk.folder, folder / name, ignore=shutil.ignore_patterns("chunks"), dirs_exist_ok=True)
        else:
            shutil.rmtree(folder)
        return report
    finally:
        claim.release()
        clean_up(claim.run)


class _Run:
    def __init__(self, options: Options, network: Network, servers: Servers) -> None:
        self._options, self._network, self._servers = options, network, servers
        self._report = Report(options.seed, options.duration_s, options.nodes)
        self._clients = Clients(servers.urls, options.seed, options.clients)
        self._faults = draw(options.seed, servers.nodes, options.duration_s, options.kinds)

    async def run(self) -> Report:
        nodes = {name: url for name, url in self._servers.urls.items() if name != FRONTEND}
        watch = Watch(nodes, self._servers.urls[FRONTEND])
        nemesis = Nemesis(self._servers, self._network, watch.leader, watch.ready)
        complaints = self._report.complaints
        try:
            for name in self._servers.names:
                self._servers.start(name)
            complaints += await self._all_ready(watch, "at the start")
            if not complaints:
                await self._disturb(watch, nemesis)
                complaints += await self._recover(watch)
        finally:
            self._note(watch, nemesis)
            await watch.close()
        self._judge(self._clients.notes)
        return self._report

    async def _disturb(self, watch: Watch, nemesis: Nemesis) -> None:
        """Let the clients work, and the faults fall, for the time of the run."""
        around = [asyncio.create_task(watch.run()), asyncio.create_task(self._revive())]
        self._clients.begin()
        try:
            async with asyncio.timeout(self._options.duration_s + _FAULT_TAIL_S_MAX), asyncio.TaskGroup() as group:
                begin = asyncio.get_running_loop().time()
                for fault in self._faults:
                    group.create_task(_later(begin + fault.at_s, nemesis, fault))
                group.create_task(asyncio.sleep(self._options.duration_s))
        finally:
            await asyncio.to_thread(self._network.heal)
            for task in around:
                task.cancel()
            await asyncio.gather(*around, return_exceptions=True)
            await asyncio.to_thread(self._servers.heal)
            await self._clients.end()

    async def _revive(self) -> None:
        while True:
            await asyncio.to_thread(self._servers.revive)
            await asyncio.sleep(_REVIVE_S)

    async def _recover(self, watch: Watch) -> list[str]:
        """After the faults, everything has to work again, everywhere, and be the same."""
        complaints = await self._all_ready(watch, "after the faults")
        complaints += await watch.settled(LIVE_S_MAX)
        before = self._clients.notes.outcomes["fail"]
        await self._clients.read_all()
        if failed := self._clients.notes.outcomes["fail"] - before:
            complaints.append(f"{failed} reads failed after the faults")
        return complaints

    async def _all_ready(self, watch: Watch, when: str) -> list[str]:
        ready = await asyncio.gather(*(watch.ready(name, LIVE_S_MAX) for name in self._servers.names))
        late = [name for name, is_ready in zip(self._servers.names, ready, strict=True) if not is_ready]
        return [f"{name} not ready {LIVE_S_MAX:g} s {when}; its log:\n{self._servers.log_tail(name)}" for name in late]

    def _note(self, watch: Watch, nemesis: Nemesis) -> None:
        report, notes = self._report, self._clients.notes
        report.complaints += [*watch.odd, *self._servers.ended, *notes.wrong]
        report.outcomes, report.answers = dict(notes.outcomes), dict(sorted(notes.answers.items()))
        report.faults, report.schedule = dict(sorted(nemesis.done.items())), nemesis.log
        report.terms, report.states_compared = len(watch.terms), watch.compared
        history.save(notes.history, self._servers.folder / "history.jsonl")
        history.save(notes.refused, self._servers.folder / "refused.jsonl")

    def _judge(self, notes: Notes) -> None:
        report = self._report
        verdict = check(notes.history)
        report.parts = verdict.parts
        report.complaints += [*map(str, verdict.violations), *revision_faults(notes.history)[:5]]
        report.complaints += self._too_little(notes)
        report.verdict = "violated" if report.complaints else "undecided" if verdict.undecided else "clean"

    def _too_little(self, notes: Notes) -> Sequence[str]:
        """Why this run proves nothing, if that is so."""
        found = []
        if notes.outcomes["ok"] < _OK_PER_S_MIN * self._options.duration_s:
            found.append(f"only {notes.outcomes['ok']} operations were answered: that is too little to judge by")
        if missing := {fault.kind for fault in self._faults} - set(self._report.faults):
            found.append(f"these faults were planned and did not happen: {', '.join(sorted(missing))}")
        return found


async def _later(at: float, nemesis: Nemesis, fault: Fault) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
    await nemesis.run(fault)
