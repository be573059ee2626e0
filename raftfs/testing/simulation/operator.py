"""The operator: members are added, removed, emptied and replaced, all of it drawn from the seed.

Requests go to whoever leads or believes to, half of them through the use cases (``Members``), half straight to the
consensus, and the next one does not wait for the answer to the last. What must not happen by an operator's fault does
not: a disk is emptied only if the others are enough, and only one at a time. An emptied member first comes back under
its old name, as one whose disk was replaced by somebody who told nobody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from raftfs.config import MemberConfig
from raftfs.consensus import Configuration, MemberRecord
from raftfs.errors import RaftfsError
from raftfs.service.service import Service
from raftfs.testing.invariants import Violation
from raftfs.testing.simulation.judge import Judge
from raftfs.testing.simulation.loop import VirtualLoop
from raftfs.testing.simulation.network import Network
from raftfs.testing.simulation.node import Node

_MEMBERS_MAX: Final = 6
_NODES_MAX: Final = 9
_CALL_S: Final = 1.0
_SETTLE_S_MAX: Final = 30.0
_FORM_S: Final = 5.0


def member(name: str) -> MemberConfig:
    """Node n3 has ports 7003 and 8003."""
    number = int(name[1:])
    return MemberConfig(id=name, peer=f"127.0.0.1:{7000 + number}", url=f"http://127.0.0.1:{8000 + number}")


class Operator:
    """``run`` changes the members until it is cancelled; ``finish`` brings what was begun to its end. ``make`` puts up
    a new machine. ``only``: these kinds of changes alone."""

    def __init__(
        self, loop: VirtualLoop, nodes: dict[str, Node], network: Network, rng: random.Random,
        trace: Callable[..., None], make: Callable[[str, list[MemberConfig]], Node], only: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._loop, self._nodes, self._network, self._rng, self._trace = loop, nodes, network, rng, trace
        self._make = make
        self._founders = list(nodes)
        kinds = {self._add: 3.0, self._remove: 2.0, self._empty: 1.5, self._end_removed: 0.5}
        self._kinds = [kind for kind in kinds if not only or kind.__name__.strip("_") in only]
        self._weights = [kinds[kind] * rng.choice((1.0, 1.0, 4.0)) for kind in self._kinds]
        self._period_s = rng.choice((0.1, 0.3))
        self._open: list[asyncio.Future[Any]] = []
        self.emptied: str | None = None
        """came back with an empty disk, and has not been replaced yet"""

    async def formed(self) -> None:
        """Wait until every node has data: one without never votes again once another one has."""
        if not await self._has_data(_SETTLE_S_MAX):
            raise Violation("liveness", f"no cluster was formed within {_SETTLE_S_MAX:g} s")

    async def _has_data(self, longest_s: float) -> bool:
        """Whether each of those with which the cluster begins comes to have data."""
        ends_s = self._loop.now_s + longest_s
        while not all(
            self._nodes[name].up and self._nodes[name].consensus._engine.configuration_index for name in self._founders
        ):
            if self._loop.now_s > ends_s:
                return False
            await asyncio.sleep(0.05)
        return True

    async def form_at_last(self, judge: Judge) -> None:
        """With all well, but not before: a member that died before it had heard all the others without data never votes
        if one of them has data by then. If so many of them did that nobody could be elected, there is nothing yet, and
        the operator begins anew with empty disks."""
        if self.settled() is not None or await self._has_data(_FORM_S) or judge.checker.applied:
            return
        self._trace("begin anew")
        judge.forget()
        for node in self._nodes.values():
            node.wipe()
        for node in self._nodes.values():
            node.start()
        await self.formed()

    async def run(self) -> None:
        await self._has_data(_SETTLE_S_MAX)
        while True:
            await asyncio.sleep(self._rng.expovariate(1 / self._period_s))
            if self.emptied is not None:
                if self._rng.random() < 0.3:
                    self._mend()
                continue
            self._rng.choices(self._kinds, self._weights)[0]()

    async def finish(self) -> Configuration:
        """With all well: until all members vote. Returns who they are; raises Violation."""
        ends_s = self._loop.now_s + _SETTLE_S_MAX
        while self._loop.now_s < ends_s:
            await asyncio.sleep(0.3)
            self._mend()
            settled = self.settled()
            if settled is not None and self.emptied is None and settled.ids == settled.voters and not self._busy():
                return settled
        raise Violation("liveness", f"not all members vote {_SETTLE_S_MAX:g} s after the faults had stopped")

    # --- what it knows -------------------------------------------------------------------------------------------

    def _leaders(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.up and node.consensus.is_leader]

    def settled(self) -> Configuration | None:
        """The members for certain: committed, with all names of voters bound, and no other change under way."""
        leader = max(self._leaders(), key=lambda node: node.consensus.term, default=None)
        if leader is None:
            return None
        engine = leader.consensus._engine
        if not engine.leads_with_committed_term or engine.configuration_index > engine.commit_index:
            return None
        found: Configuration = engine.configuration
        return found if all(record.uuid for record in found.members if record.voter) else None

    def _busy(self) -> bool:
        self._open = [answer for answer in self._open if not answer.done()]
        return bool(self._open)

    # --- asking --------------------------------------------------------------------------------------------------

    def _ask(self, what: str, name: str, change: Callable[[Configuration], Configuration], work: Any) -> None:
        """``change`` straight to the consensus, or ``work`` with the use cases."""
        leaders = self._leaders()
        if not leaders:
            return
        leader = self._rng.choice(leaders)
        self._loop.seen[f"members: {what}"] += 1
        self._trace("members", what, name, "at", leader.name)
        asked = partial(_change, change=change) if self._rng.random() < 0.5 else work
        self._open.append(leader.call(partial(_quietly, asked)))

    def _add(self) -> None:
        """A new machine, or one that was removed, with an empty disk."""
        settled = self.settled()
        if settled is None or len(settled.members) >= _MEMBERS_MAX or self._busy():
            return
        strangers = sorted(set(self._nodes) - settled.ids)
        if len(self._nodes) < _NODES_MAX and (not strangers or self._rng.random() < 0.7):
            name = f"n{len(self._nodes) + 1}"
            known = [member(record.id) for record in settled.members]
            self._nodes[name] = self._make(name, [*known, member(name)])
            self._network.names.append(name)
        elif strangers:
            name = self._rng.choice(strangers)
            self._nodes[name].wipe()
            self._nodes[name].configure([*[member(record.id) for record in settled.members], member(name)])
        else:
            return
        self._nodes[name].start()
        its = member(name)
        record = MemberRecord(name, its.peer, its.url, voter=False)

        def change(now: Configuration) -> Configuration:
            if name in now.ids:
                raise ValueError(f"{name} is a member")
            return now.with_member(record)

        self._ask("add", name, change, lambda s: s.members.add(name, its.peer, its.url, timeout_s=_CALL_S))

    def _remove(self) -> None:
        leaders = self._leaders()
        if not leaders:
            return
        present = self._rng.choice(leaders).consensus.configuration
        if len(present.voters) > 1:
            self._take_away(self._rng.choice(sorted(present.ids)))

    def _take_away(self, name: str) -> None:
        self._ask(
            "remove", name, lambda now: now.without(name), lambda s: s.members.remove(name, timeout_s=_CALL_S)
        )  # fmt: skip

    def _end_removed(self) -> None:
        """One that was removed does not go on running."""
        settled = self.settled()
        gone = [] if settled is None else sorted(set(self._nodes) - settled.ids)
        if gone and not self._busy():
            self._nodes[self._rng.choice(gone)].crash(power=False)

    def _empty(self) -> None:
        """A member loses its disk, and comes back without a word."""
        settled = self.settled()
        if settled is None or len(settled.voters) < 3 or self._busy():
            return
        self.emptied = name = self._rng.choice(sorted(settled.voters))
        self._loop.seen["members: emptied"] += 1
        self._trace("emptied", name)
        self._begin_empty(name, settled)

    def _begin_empty(self, name: str, settled: Configuration) -> None:
        self._nodes[name].wipe()
        self._nodes[name].configure([member(record.id) for record in settled.members])
        self._nodes[name].start()

    def _empty_who_is_to_come(self, settled: Configuration) -> None:
        """A new member that has got data by a change that was lost is refused until it is emptied once more."""
        for record in settled.members:
            node = self._nodes[record.id]
            if not record.voter and not record.uuid and node.up and not node.consensus._has_no_data():
                self._begin_empty(record.id, settled)

    def _mend(self) -> None:
        """Replace who was emptied, or remove it."""
        name, settled = self.emptied, self.settled()
        if settled is None or self._busy():
            return
        self._empty_who_is_to_come(settled)
        if name is None:
            return
        record, node = settled.get(name), self._nodes[name]
        if record is None or record.uuid == node.uuid or not (record.voter or record.uuid):
            self.emptied = None
            return
        if self._rng.random() < 0.2 and len(settled.voters) > 2:
            self._take_away(name)
            return
        new = MemberRecord(name, record.peer, record.url, voter=False)
        self._ask(
            "replace", name, lambda now: now.with_member(new), lambda s: s.members.replace(name, timeout_s=_CALL_S)
        )  # fmt: skip


async def _change(service: Service, *, change: Callable[[Configuration], Configuration]) -> None:
    await service.members._consensus.change_members(change, timeout_s=_CALL_S)


async def _quietly(work: Callable[[Service], Coroutine[Any, Any, Any]], service: Service) -> None:
    """Whether it was done shows in the configuration; its answer may be lost as any other."""
    with suppress(RaftfsError):
        await work(service)
