"""One run: a cluster comes up, clients work while faults fall, all is healed, and what was seen is judged."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftfs.testing.nemesis.clients import Clients
from raftfs.testing.nemesis.doors import Notes
from raftfs.testing.nemesis.faults import Nemesis
from raftfs.testing.nemesis.machine import Claim, Disk, check_machine, clean_up
from raftfs.testing.nemesis.network import Network
from raftfs.testing.nemesis.schedule import KINDS, Fault, Kind, draw
from raftfs.testing.nemesis.servers import FRONTENDS, Servers
from raftfs.testing.nemesis.trial import Report, Trial

_FAULT_TAIL_S_MAX: Final = 600.0
"""So long after the time of the run the last fault may go on: a member is replaced, and that takes what it takes."""

_OK_PER_S_MIN: Final = 2.0


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


def run(options: Options) -> Report:
    """Needs root. Raises CannotRun where the machine cannot do it, ConfigError for wrong options."""
    check_machine()
    claim = Claim()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="raftfs-nemesis-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"n{number}" for number in range(1, options.nodes + 1)]
    try:
        spare = f"n{options.nodes + 1}"
        network = Network(claim.run, [*names, spare, *FRONTENDS])
        network.up()
        with network.enter_hub():
            disks = {name: Disk(claim.folder / name) for name in [*names, spare]}
            places = {name: disk.folder for name, disk in disks.items()}
            servers = Servers(folder, network, places, options.node_script, spare=spare, disks=disks)
            try:
                report = asyncio.run(_run(options, network, servers))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors  # a fault that could not be carried out
            finally:
                servers.close()
        report.claim = claim.run
        if report.verdict != "clean" or options.keep or options.folder:
            report.folder = str(folder)
            for name, place in places.items():
                shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("chunks"), dirs_exist_ok=True)
        else:
            shutil.rmtree(folder)
        return report
    finally:
        claim.release()
        clean_up(claim.run)


async def _run(options: Options, network: Network, servers: Servers) -> Report:
    return await _Run(options, network, servers).run()


class _Run(Trial):
    def __init__(self, options: Options, network: Network, servers: Servers) -> None:
        clients = Clients(servers, options.seed, options.clients)
        super().__init__(Report(options.seed, options.duration_s, options.nodes), servers, clients)
        self._options, self._network = options, network
        self._faults = draw(options.seed, servers.nodes, options.duration_s, options.kinds)
        self._nemesis = Nemesis(servers, network, self.watch)

    async def disturb(self) -> None:
        """Let the faults fall, for the time of the run."""
        try:
            async with asyncio.timeout(self._options.duration_s + _FAULT_TAIL_S_MAX), asyncio.TaskGroup() as group:
                begin = asyncio.get_running_loop().time()
                for fault in self._faults:
                    group.create_task(_later(begin + fault.at_s, self._nemesis, fault))
                group.create_task(asyncio.sleep(self._options.duration_s))
        except TimeoutError:
            self.report.complaints.append(f"faults were not over {_FAULT_TAIL_S_MAX:g} s after the time of the run")

    async def end_harm(self) -> None:
        await asyncio.to_thread(self._network.heal)

    def note(self) -> None:
        super().note()
        self.report.complaints += self._nemesis.complaints
        self.report.faults, self.report.schedule = dict(sorted(self._nemesis.done.items())), self._nemesis.log

    def too_little(self, notes: Notes) -> Sequence[str]:
        found = []
        if notes.outcomes["ok"] < _OK_PER_S_MIN * self._options.duration_s:
            found.append(f"only {notes.outcomes['ok']} operations were answered: that is too little to judge by")
        if missing := {fault.kind for fault in self._faults} - set(self.report.faults):
            found.append(f"these faults were planned and did not happen: {', '.join(sorted(missing))}")
        return found


async def _later(at: float, nemesis: Nemesis, fault: Fault) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
    await nemesis.run(fault)
