"""One run: rounds in which the power goes while clients work, and a verdict on what they saw."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from raftfs.consensus.termfile import TermFile
from raftfs.errors import CorruptData
from raftfs.testing.nemesis.clients import Clients
from raftfs.testing.nemesis.doors import Notes
from raftfs.testing.nemesis.machine import CannotRun, Claim, check_machine, clean_up
from raftfs.testing.nemesis.network import Network
from raftfs.testing.nemesis.servers import FRONTENDS, NODE_OPTIONS, Servers
from raftfs.testing.nemesis.trial import Report, Trial
from raftfs.testing.powercut.disk import PowerDisk, check_fuse

NODES: Final = ("n1", "n2", "n3")
OPTIONS: Final[dict[str, Any]] = {**NODE_OPTIONS, "journal_segment_bytes": 64 * 1024, "journal_segments_kept": 2}
"""Small segments: a run sees many begin and end, databases made durable, and snapshots."""

_BIRTHS: Final = 3
_BIRTH_CHANGES_MAX: Final = 60
_START_CHANGES_MAX: Final = 40
_AGAIN: Final = 0.35
"""Share of cuts after which the power goes once more, during the start."""

_POLL_S: Final = 0.5
_CUT_S_MAX: Final = 8.0
_OK_PER_ROUND_MIN: Final = 5
_TREES_KEPT: Final = 6
_SHOWN_MAX: Final = 3


@dataclass(frozen=True)
class Options:
    """``folder``: where logs and history go; None for a temporary one, which a clean run removes. ``node_script``: a
    Python file to run in place of ``raftfs``."""

    seed: int
    rounds: int = 20
    clients: int = 6
    folder: Path | None = None
    keep: bool = False
    node_script: Path | None = None


def run(options: Options) -> Report:
    """Needs root and FUSE. Raises CannotRun where the machine cannot do it."""
    check_machine()
    check_fuse()
    claim = Claim()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="raftfs-powercut-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    disks = {name: PowerDisk(claim.folder / name, folder / "disks" / name, f"{options.seed}/{name}") for name in NODES}
    try:
        network = Network(claim.run, [*NODES, *FRONTENDS])
        network.up()
        with network.enter_hub():
            places = {name: disk.folder for name, disk in disks.items()}
            servers = Servers(folder, network, places, options.node_script, options=OPTIONS)
            try:
                report = asyncio.run(_run(options, servers, disks))
            finally:
                # What is left of the last life is kept as well; a disk that has failed is closed below.
                with contextlib.suppress(CannotRun):
                    servers.cut_off(NODES, lambda: _power_off(disks.values()))
                servers.close()
        if report.verdict != "clean" or options.keep or options.folder:
            report.folder = str(folder)
        else:
            shutil.rmtree(folder)
        return report
    finally:
        for disk in disks.values():
            disk.close()
        claim.release()
        clean_up(claim.run)


def _power_off(disks: Iterable[PowerDisk]) -> None:
    for disk in disks:
        if disk.is_on:
            disk.power_off()


def _term_on(tree: Path) -> int:
    """The term that a node will find on its disk; -1 if it is not there, or damaged."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "term")  # reading it as a node does may mend it
        try:
            shutil.copyfile(tree / "data" / "journal" / "term", copy)
            file = TermFile(copy, may_begin=False)
        except (FileNotFoundError, CorruptData):
            return -1
        file.close()
        return file.term


async def _run(options: Options, servers: Servers, disks: dict[str, PowerDisk]) -> Report:
    return await _Run(options, servers, disks).run()


class _Run(Trial):
    def __init__(self, options: Options, servers: Servers, disks: dict[str, PowerDisk]) -> None:
        super().__init__(Report(options.seed, 0, len(NODES)), servers, Clients(servers, options.seed, options.clients))
        self._options, self._disks = options, disks
        self._dice = random.Random(f"powercut/{options.seed}")
        self._began_s = time.monotonic()
        self._done: Counter[str] = Counter()
        self._open: Counter[str] = Counter()

    async def begin(self) -> None:
        """The power goes during the first start, again and again."""
        for disk in self._disks.values():
            await asyncio.to_thread(disk.power_on)
        for frontend in FRONTENDS:
            self.servers.start(frontend)
        for _ in range(_BIRTHS):
            await self._arm(NODES, _BIRTH_CHANGES_MAX)
            await self._start(NODES)
            await self._await_cut(NODES)
            await self._cut(NODES, "at the first start")
        await self._start(NODES)

    async def disturb(self) -> None:
        for number in range(self._options.rounds):
            victims, kind = await self._choose()
            await self._work(victims)
            await self._cut(victims, kind)
            if kind == "one for long":
                await asyncio.sleep(self._dice.uniform(2, 6))
            while self._dice.random() < _AGAIN:
                await self._arm(victims, _START_CHANGES_MAX)
                await self._start(victims)
                await self._await_cut(victims)
                await self._cut(victims, "again, at the start")
            await self._start(victims)
            self.report.complaints += await self._ready(f"after the cut in round {number + 1}", victims)
            if self.report.complaints or self.watch.odd or self.servers.ended or self.clients.notes.wrong:
                self.is_lost = True  # what is on the disks now shows why
                return

    async def _ready(self, when: str, names: Sequence[str]) -> list[str]:
        """Wait until they are, or until one has ended by itself, which ends the run anyway."""
        ready = asyncio.create_task(self.all_ready(when, names))
        while not ready.done() and not self.servers.ended:
            await asyncio.wait([ready], timeout=_POLL_S)
        if ready.done():
            return ready.result()
        ready.cancel()
        return []

    async def end_harm(self) -> None:
        """Power for all disks, whatever was going on."""
        for disk in self._disks.values():
            if disk.is_on and disk.was_cut:
                await self._cut([name for name, one in self._disks.items() if one is disk], "unplanned")

    async def _choose(self) -> tuple[list[str], str]:
        throw, node = self._dice.random(), self._dice.choice(NODES)
        others = [name for name in NODES if name != node]
        if throw < 0.65:
            return list(NODES), "all"
        if throw < 0.75:
            return others, "two"
        if throw < 0.88:
            return [node], "one for long"
        return [await self.watch.leader() or node], "the leader"

    async def _work(self, victims: Sequence[str]) -> None:
        """Let the clients work for a while, and then until a disk has a certain number of changes more, perhaps."""
        await asyncio.sleep(self._dice.uniform(0.2, 4.0))
        if self._dice.random() < 0.6:
            first = [self._dice.choice(victims)]
            await self._arm(first, 150)
            await self._await_cut(first)

    async def _arm(self, names: Sequence[str], changes_max: int) -> None:
        for name in names:
            await asyncio.to_thread(self._disks[name].cut_after, self._dice.randint(1, changes_max))

    async def _await_cut(self, names: Sequence[str]) -> None:
        """Until all of these have lost their power, or for a while. One that has waits, and does nothing any more."""
        end = time.monotonic() + _CUT_S_MAX
        for name in names:
            await asyncio.to_thread(self._disks[name].wait_cut, max(0.0, end - time.monotonic()))

    async def _start(self, names: Sequence[str]) -> None:
        for name in names:
            await asyncio.to_thread(self.servers.start, name)

    async def _cut(self, names: Sequence[str], kind: str) -> None:
        """The power of these nodes goes, and comes back; their processes are not started yet."""
        await self.watch.statuses()  # the terms that they have told by now must be theirs afterwards
        await asyncio.to_thread(self._power_cycle, names)
        self._done[kind] += 1
        for name in names:
            if (term := _term_on(self._disks[name].tree)) < (told := self.watch.told(name)):
                self.watch.odd.append(f"{name} was in term {told}, and after the cut its disk says {term}")
        fates = []
        for name in names:
            counts = self._disks[name].counts
            self._open.update(counts)
            fates.append(f"{name} {counts['unsynced_files']} files {counts['unsynced_names']} names")
        at_s = time.monotonic() - self._began_s
        self.report.schedule.append(f"{at_s:6.1f} s  {kind}; not synced: {', '.join(fates)}")

    def _power_cycle(self, names: Sequence[str]) -> None:
        disks = [self._disks[name] for name in names]
        for disk in disks:
            disk.cut()
        self.servers.cut_off(names, lambda: _power_off(disks))
        for disk in disks:
            if self._options.folder is None and not self._options.keep:
                disk.forget_lives(_TREES_KEPT)
            disk.power_on()

    def note(self) -> None:
        super().note()
        report = self.report
        report.duration_s = round(time.monotonic() - self._began_s, 1)
        snapshots = len(self._logged(r"installing the snapshot"))
        report.faults = {**dict(sorted(self._done.items())), "snapshots installed": snapshots}
        report.schedule.append(f"in all: {dict(sorted(self._open.items()))}")
        # A node may get over damage with the others' help; after a power cut there must be none to get over.
        damage = self._logged(r"damage|rejoin")
        report.complaints += [f"a power cut was taken for damage: {line}" for line in damage[:_SHOWN_MAX]]

    def _logged(self, pattern: str) -> list[str]:
        """The lines of all nodes' logs in which this occurs."""
        lines = (line for name in NODES for line in self.servers.log(name).read_text(errors="replace").splitlines())
        return [line for line in lines if re.search(pattern, line)]

    def too_little(self, notes: Notes) -> Sequence[str]:
        found = []
        if notes.outcomes["ok"] < _OK_PER_ROUND_MIN * self._options.rounds:
            found.append(f"only {notes.outcomes['ok']} operations were answered: that is too little to judge by")
        if not (self._open["unsynced_files"] and self._open["unsynced_names"] and self._done["all"]):
            found.append(f"too little could be lost: {dict(self._open)}, {dict(self._done)}")
        return found
