"""Faults in the product, planted one at a time, to see that the simulator finds each of them.

Each leaves out one rule of docs/design/consensus.md or membership.md, or answers clients wrongly. ``PLANTS`` names
them, and within how many seeds each is found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from raftfs.consensus import messages as m
from raftfs.consensus.barriers import Barriers
from raftfs.consensus.elections import Elections
from raftfs.consensus.engine import Engine
from raftfs.consensus.guard import Guard
from raftfs.consensus.membership import Configuration
from raftfs.consensus.parts import Parts
from raftfs.consensus.proposals import Proposals
from raftfs.consensus.roster import Roster
from raftfs.errors import RaftfsError, Unavailable, UnknownOutcome
from raftfs.testing.simulation.plain import PlainEngine
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


class SendsAllAtOnce(Guard):
    """Without rule 8: nothing bounds what is on its way to a follower."""

    def _open(self, peer: str) -> None:
        super()._open(peer)
        if peer in self._flows:
            self._flows[peer].bytes_max = 2**62


class BelievesMembers(Guard):
    """Without rule 9: what no correct member sends is let in, as long as it has the shape of a message."""

    def _check_entries(self, message: m.Append) -> None:
        pass

    def _receive_ack(self, peer: str, message: m.AppendAck) -> None:
        if message.match_index > self._journal.last_index and message.term == self.core.term:
            self._deliver(peer, type="next_node_idx", next_node_idx=message.match_index + 1, reset=False, success=True)
        else:
            super()._receive_ack(peer, message)


class Disloyal(Elections):
    """Without rule 5: everybody who asks is granted a pre-vote and a vote, whatever leader lives."""

    def _follows_live_leader(self) -> bool:
        return self._voter.is_leader


class AsksForVotesAtOnce(Elections):
    """Without pre-vote (rule 5): a node that hears no leader raises its term and asks for votes."""

    def _ask(self, now_s: float) -> None:
        self._quiet_since_s, self._timeout_s = now_s, self._draw()
        self._voter.begin_election()


class WaitsForTheTimeout(Elections):
    """Without rule 6: that a leader's connection closed says nothing."""

    def lost(self, peer: str) -> None:
        pass


class EngineWith(Engine):
    """An engine with other elections."""

    def __init__(self, *, elections: type[Elections], **options: Any) -> None:
        super().__init__(**options)
        self.elections = elections(
            me=options["me"], peers=self.peers, voter=self, times=options["times"], emit=options["emit"],
            clock=options["clock"], rng=options["rng"],
        )  # fmt: skip
        self.guard.on_vote = self.elections.voted


class LeadsWithoutQuorum(Engine):
    """Without check-quorum (rule 5): a leader that nobody answers leads on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._raft._SyncObj__conf.leaderFallbackTimeout = 3e8


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


class WaitsForEver(Proposals):
    """Without rule 7: no deadline, and no answer to what another leader's entry replaced (as PySyncObj's callbacks)."""

    async def submit(self, command: bytes, pump: Callable[[], None], *, timeout_s: float) -> Any:
        return await super().submit(command, pump, timeout_s=3e8)

    def applied(self, index: int, term: int, results: Sequence[Any]) -> None:
        self._open[index] = [(mine, batch) for mine, batch in self._open.pop(index, ()) if mine == term]
        super().applied(index, term, results)


class SaysNotApplied(Proposals):
    """What was proposed and is undecided at its deadline is called not applied."""

    async def submit(self, command: bytes, pump: Callable[[], None], *, timeout_s: float) -> Any:
        try:
            return await super().submit(command, pump, timeout_s=timeout_s)
        except UnknownOutcome as error:
            wrong: RaftfsError = Unavailable(error.detail, outcome="not_applied")
            raise wrong from error


class LetsAnybodyIn(Roster):
    """Without the other half of rule 9: whoever comes is listened to, a member or not."""

    def admit(self, name: str, uuid: str, fresh: bool) -> str | None:
        super().admit(name, uuid, fresh)
        return None


class TrustsNames(Roster):
    """Whoever comes with a member's name is that member, whatever its disk remembers."""

    def admit(self, name: str, uuid: str, fresh: bool) -> str | None:
        refused = super().admit(name, uuid, fresh)
        return refused if self.book.get(name) is None else None

    @property
    def formed(self) -> bool:
        return True


class ListenersCount(Engine):
    """Who only listens is counted like the others."""

    def _take_members(self) -> None:
        everybody = self.configuration.ids - {self.me}
        self.guard.members(everybody, frozenset(), lambda: self._change_cluster(everybody))
        self.peers = self.elections.peers = everybody


class ChangesAtOnce(Engine):
    """The next change of the members does not wait until the last one is committed."""

    def check_change(self, new: Configuration) -> None:
        if not self.leads_with_committed_term or self.me not in new.voters:
            raise ValueError("not now")


class LeavesAtOnce(Roster):
    """Who is removed is refused from then on, although that may never be committed."""

    def follow(self, index: int, configuration: Configuration) -> None:
        super().follow(index, configuration)
        if self._leaving:
            self._leaving.clear()
            self.on_change()


def _in_data_directory(path: Path) -> bool:
    """Its own names: journal, node.json, founder, state.db."""
    return len(path.parts) == 1


@dataclass(frozen=True)
class Planted:
    """``within``: so many seeds, from 0 on, are enough to find it."""

    plant: Plant
    within: int


def _guard(guard: type[Guard], *harm: str) -> Plant:
    return Plant(Parts(engine=partial(Engine, guard=guard)), harm=harm)


def _elections(elections: type[Elections], trial: str) -> Plant:
    return Plant(Parts(engine=partial(EngineWith, elections=elections)), trial=trial)


def _changing(engine: type[Engine]) -> Plant:
    return Plant(Parts(engine=engine), changes=("add", "remove"), harm=("depose", "isolate", "partition"))


_SLOW: Final = (1.0, 100.0)

PLANTS: Final[dict[str, Planted]] = {
    "plain PySyncObj": Planted(Plant(Parts(engine=PlainEngine), harm=("depose", "restart_all"), slow=_SLOW), 100),
    "rule 1: acknowledgements before durability": Planted(
        Plant(Parts(engine=partial(Engine, guard=AcksBeforeDurable)), harm=("depose", "restart_all"), slow=_SLOW), 200
    ),
    "rule 2: removal of what matches": Planted(_guard(CutsWhatMatches, "break_wire", "kill"), 200),
    "rule 3: every acknowledgement counts": Planted(_guard(CountsEveryAck, "lose_power", "restart_all"), 100),
    "rule 4: unverified entries are committed": Planted(
        Plant(Parts(engine=partial(Engine, guard=CommitsUnverified)), harm=("strand",), append_bytes=100), 100
    ),
    "rule 5: no loyalty to a live leader": Planted(_elections(Disloyal, "break_a_link"), 20),
    "rule 5: no pre-vote": Planted(_elections(AsksForVotesAtOnce, "break_a_link"), 20),
    "rule 5: no check-quorum": Planted(Plant(Parts(engine=LeadsWithoutQuorum), trial="silence_the_leader"), 20),
    "rule 6: no quick failover": Planted(_elections(WaitsForTheTimeout, "kill_the_leader"), 20),
    "rule 7: proposals without an end": Planted(Plant(Parts(proposals=WaitsForEver), harm=("depose",)), 100),
    "rule 8: no bound of what is in flight": Planted(_guard(SendsAllAtOnce, "starve"), 100),
    "rule 9: members are believed": Planted(_guard(BelievesMembers, "talk_nonsense", "kill"), 20),
    "rule 9: strangers are let in": Planted(Plant(roster=LetsAnybodyIn, harm=("come_as_a_stranger",)), 20),
    "application before durability": Planted(
        Plant(Parts(engine=AppliesBeforeDurable), harm=("restart_all",), slow=_SLOW), 200
    ),
    "reads without confirmation": Planted(Plant(Parts(barriers=ReadsUnconfirmed), harm=("depose",)), 300),
    "reads at once in a new term": Planted(Plant(Parts(barriers=ReadsAtOnce), harm=("depose",)), 300),
    "answers of another entry": Planted(Plant(Parts(proposals=AnswersForOthers), harm=("depose",)), 300),
    "unknown called not applied": Planted(Plant(Parts(proposals=SaysNotApplied)), 200),
    "votes are forgotten": Planted(Plant(forgets="term"), 150),
    "journal is not synced": Planted(Plant(forgets=".segment"), 50),
    "names are not synced": Planted(Plant(forgets_names=_in_data_directory), 50),
    "members: names are trusted": Planted(
        Plant(roster=TrustsNames, changes=("empty",), harm=("come_as_a_stranger", "isolate", "depose")), 50
    ),
    "members: listeners count": Planted(_changing(ListenersCount), 100),
    "members: two changes at once": Planted(_changing(ChangesAtOnce), 100),
    "members: who is removed is refused at once": Planted(
        Plant(roster=LeavesAtOnce, changes=("remove",), harm=("depose", "isolate")), 200
    ),
    "retries without a key": Planted(Plant(keys=False), 50),
}
"""A fault's name → it, and how soon it is found."""
