"""What every run of real servers has in common: they come up, clients work while harm is done, all is healed, and what
was seen is judged."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from raftfs.testing import history
from raftfs.testing.linearizability import check, revision_faults
from raftfs.testing.nemesis.clients import Clients
from raftfs.testing.nemesis.doors import Notes
from raftfs.testing.nemesis.servers import Servers
from raftfs.testing.nemesis.watch import Watch

LIVE_S_MAX: Final = 60.0
"""So long after the last fault everything must serve, and be the same everywhere."""

_REVIVE_S: Final = 1.0

Verdict = Literal["clean", "violated", "undecided"]


@dataclass
class Report:
    """What a run was and came to. ``faults`` counts those carried out; ``complaints`` say what went wrong.
    ``claim`` is the name that its namespaces and mounts bore."""

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
    claim: str = ""
    folder: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Trial(ABC):
    """One run. ``begin`` and ``disturb`` are what one kind of run does and another does not."""

    def __init__(self, report: Report, servers: Servers, clients: Clients) -> None:
        self.report, self.servers, self.clients = report, servers, clients
        self.watch = Watch(servers)
        self.is_lost = False
        """what was seen says enough, and the cluster may never serve again: nothing is waited for any more"""

    async def run(self) -> Report:
        complaints = self.report.complaints
        try:
            await self.begin()
            complaints += await self.all_ready("at the start")
            if not complaints:
                await self._disturb()
                if not self.is_lost:
                    complaints += await self._recover()
        finally:
            self.note()
            await self.watch.close()
        self._judge(self.clients.notes)
        return self.report

    async def begin(self) -> None:
        """Start all servers."""
        for name in self.servers.names:
            self.servers.start(name)

    @abstractmethod
    async def disturb(self) -> None:
        """Do harm, while clients work."""

    @abstractmethod
    async def end_harm(self) -> None:
        """Let there be no harm left that keeps a server from working."""

    @abstractmethod
    def too_little(self, notes: Notes) -> Sequence[str]:
        """Why this run proves nothing, if that is so."""

    async def _disturb(self) -> None:
        """Let the clients work, and the faults fall."""
        around = [asyncio.create_task(self.watch.run()), asyncio.create_task(self._revive())]
        self.clients.begin()
        try:
            await self.disturb()
        finally:
            await self.end_harm()
            for task in around:
                task.cancel()
            await asyncio.gather(*around, return_exceptions=True)
            await asyncio.to_thread(self.servers.heal)
            with suppress(*((TimeoutError,) if self.is_lost else ())):
                await self.clients.end()

    async def _revive(self) -> None:
        while True:
            await asyncio.to_thread(self.servers.revive)
            await asyncio.sleep(_REVIVE_S)

    async def _recover(self) -> list[str]:
        """After the faults, everything has to work again, everywhere, and be the same."""
        complaints = await self.all_ready("after the faults")
        complaints += await self.watch.settled(LIVE_S_MAX)
        before = self.clients.notes.outcomes["fail"]
        await self.clients.read_all()
        if failed := self.clients.notes.outcomes["fail"] - before:
            complaints.append(f"{failed} reads failed after the faults")
        return complaints + await self.watch.quiet()

    async def all_ready(self, when: str, names: Sequence[str] | None = None) -> list[str]:
        """Wait for servers (all of them). Complaints about those that do not come up."""
        names = self.servers.names if names is None else names
        ready = await asyncio.gather(*(self.watch.ready(name, LIVE_S_MAX) for name in names))
        late = [name for name, is_ready in zip(names, ready, strict=True) if not is_ready]
        return [f"{name} not ready {LIVE_S_MAX:g} s {when}; its log:\n{self.servers.log_tail(name)}" for name in late]

    def note(self) -> None:
        """Put what was seen into the report."""
        report, notes = self.report, self.clients.notes
        report.complaints += [*self.watch.odd, *self.servers.ended, *notes.wrong]
        report.outcomes, report.answers = dict(notes.outcomes), dict(sorted(notes.answers.items()))
        report.terms, report.states_compared = len(self.watch.terms), self.watch.compared
        history.save(notes.history, self.servers.folder / "history.jsonl")
        history.save(notes.refused, self.servers.folder / "refused.jsonl")

    def _judge(self, notes: Notes) -> None:
        report = self.report
        verdict = check(notes.history)
        report.parts = verdict.parts
        report.complaints += [*map(str, verdict.violations), *revision_faults(notes.history)[:5]]
        report.complaints += [] if self.is_lost else self.too_little(notes)
        report.verdict = "violated" if report.complaints else "undecided" if verdict.undecided else "clean"
