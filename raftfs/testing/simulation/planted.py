"""Faults in the product, planted one at a time, to see that the simulator finds each of them.

Each leaves out one rule of docs/design/consensus.md, or answers clients wrongly. ``PLANTS`` names them, with a seed
that finds each, and what is said then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from raftfs.consensus import messages as m
from raftfs.consensus.barriers import Barriers
from raftfs.consensus.elections import Elections
from raftfs.consensus.engine import Engine
from raftfs.consensus.guard import Guard
from raftfs.consensus.parts import Parts
from raftfs.consensus.proposals import Proposals
from raftfs.errors import RaftfsError, Unavailable, UnknownOutcome
from raftfs.testing.simulation.simulation import Plant


class AcksBeforeDurable(Guard):
    """Without rule 1: entries count, here and elsewhere, before they are on this node's disk."""

    def _durable(self, index: int) -> int:
        return index


class CutsWhatMatches(Guard):
    """Without rule 2, and without the sender's half of it (rule 8): appends leave as PySyncObj makes them, two entries
    a message, again and again; and PySyncObj sees them as they came, and cuts the log behind their beginning."""

    def _send_append(self, peer: str, message: dict[str, Any]) -> None:
        if peer not in self._flows or "prevLogIdx" not in message:
            return super()._send_append(peer, message)
        flow = self._flows[peer]
        flow.enter_term(message["term"])
        entries = [m.WireEntry(term, bytes(data)) for data, _, term in message["entries"]]
        for start in range(0, max(1, len(entries)), 2):
            prev = message["prevLogIdx"] + start
            self._seq += 1
            part = entries[start : start + 2]
            self._emit(
                peer, m.Append(flow.term, self._seq, prev, self._journal.term(prev), message["commit_index"], part)
            )
        return None

    def _trim(self, prev: int, entries: list[m.WireEntry]) -> tuple[int, list[m.WireEntry]]:
        return prev, entries


class CountsEveryAck(Guard):
    """Without rule 3: PySyncObj gets each acknowledgement, of whatever term."""

    def receive(self, peer: str, message: m.Message) -> None:
        if isinstance(message, m.AppendAck) and not message.reset:
            next_index = message.match_index + 1
            self._deliver(peer, type="next_node_idx", next_node_idx=next_index, reset=False, success=True)
        else:
            super().receive(peer, message)


class CommitsUnverified(Guard):
    """Without rule 4: PySyncObj sees the leader's commit index as it came."""

    commit = 0

    def _receive_append(self, peer: str, message: m.Append) -> None:
        self.commit = message.commit_index
        super()._receive_append(peer, message)

    def _deliver(self, peer: str, **message: Any) -> None:
        if message["type"] == "append_entries":
            message["commit_index"] = self.commit
        super()._deliver(peer, **message)


class Disloyal(Elections):
    """Without rule 5: everybody who asks is granted a pre-vote and a vote, whatever leader lives."""

    def _follows_live_leader(self) -> bool:
        return self._voter.is_leader


class DisloyalEngine(Engine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.elections = Disloyal(
            me=options["me"], peers=self.peers, voter=self, times=options["times"], emit=options["emit"],
            clock=options["clock"], rng=options["rng"],
        )  # fmt: skip
        self.guard.on_vote = self.elections.voted


class AppliesBeforeDurable(Engine):
    """Entries are applied as soon as they are committed, whether or not they are on this node's disk."""

    @property
    def safe_index(self) -> int:
        return self.commit_index


class ReadsUnconfirmed(Barriers):
    """A leader answers reads from what it knows, and asks nobody whether it leads still."""

    def _begin_round(self) -> None:
        callbacks, self._waiting = self._waiting, []
        for callback in callbacks:
            callback(self._engine.commit_index)


class ReadsAtOnce(Barriers):
    """A new leader answers reads before an entry of its own term is committed, from an old commit index."""

    def tick(self) -> None:
        if self._engine.is_leader and self._round is None and self._waiting:
            self._begin_round()
        super().tick()


class AnswersForOthers(Proposals):
    """An entry's results are given to whoever proposed something at that index, in whatever term."""

    def applied(self, index: int, term: int, results: Sequence[Any]) -> None:
        self._open[index] = [(term, batch) for _, batch in self._open.pop(index, ()) if len(batch) == len(results)]
        super().applied(index, term, results)


class SaysNotApplied(Proposals):
    """What was proposed and is undecided at its deadline is called not applied."""

    async def submit(self, command: bytes, pump: Callable[[], None], *, timeout_s: float) -> Any:
        try:
            return await super().submit(command, pump, timeout_s=timeout_s)
        except UnknownOutcome as error:
            wrong: RaftfsError = Unavailable(error.detail, outcome="not_applied")
            raise wrong from error


@dataclass(frozen=True)
class Planted:
    """``seed``: one that found it when this was written, and ``found_as``: the promise that it broke then."""

    plant: Plant
    seed: int = 0
    found_as: str = ""


def _guard(guard: type[Guard], *, harm: tuple[str, ...] = ()) -> Plant:
    return Plant(Parts(engine=partial(Engine, guard=guard)), harm=harm)


PLANTS: Final[dict[str, Planted]] = {
    "acknowledgements before durability": Planted(_guard(AcksBeforeDurable), 88, "leader completeness"),
    "removal of what matches": Planted(
        _guard(CutsWhatMatches, harm=("break_wire", "lose_power", "kill")), 50, "liveness"
    ),
    "every acknowledgement counts": Planted(
        _guard(CountsEveryAck, harm=("lose_power", "restart_all")), 200, "leader completeness"
    ),
    "no loyalty to a live leader": Planted(Plant(Parts(engine=DisloyalEngine)), 2, "loyalty"),
    "application before durability": Planted(
        Plant(Parts(engine=AppliesBeforeDurable), harm=("lose_power", "slow_down")), 125, "a node goes on"
    ),
    "reads without confirmation": Planted(
        Plant(Parts(barriers=ReadsUnconfirmed), harm=("isolate",)), 31, "revisions follow real time"
    ),
    "reads at once in a new term": Planted(Plant(Parts(barriers=ReadsAtOnce)), 37, "revisions follow real time"),
    "answers of another entry": Planted(Plant(Parts(proposals=AnswersForOthers)), 13, "durability"),
    "unknown called not applied": Planted(Plant(Parts(proposals=SaysNotApplied)), 3, "exactly once"),
    "votes are forgotten": Planted(Plant(forgets="term"), 15, "terms never go back"),
    "journal is not synced": Planted(Plant(forgets=".segment"), 4, "a node goes on"),
    "retries without a key": Planted(Plant(keys=False), 6, "exactly once"),
}
"""A fault's name → it, and how soon it is found."""
