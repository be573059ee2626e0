"""ReadIndex: proof that a read at this node sees everything that was acknowledged before it began.

Raft dissertation, section 6.4: the leader notes its commit index (once an entry of its term is committed), a majority
confirms that there is no newer leader, and the read waits until that index is applied. A follower asks the leader for
the index and waits for its own state. All reads that wait share one round, but a read never joins a round that was
sent before it came. Sans-IO: ``tick`` and the ``receive_*`` calls move it, callbacks get the index, or None if there
is no leader that can say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from raftfs.consensus import messages as m

Callback = Callable[[int | None], None]


class Leadership(Protocol):
    """What barriers ask the engine."""

    @property
    def term(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def leader_id(self) -> str | None: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def leads_with_committed_term(self) -> bool: ...
    @property
    def takes_part(self) -> bool: ...
    @property
    def peers(self) -> frozenset[str]:
        """The other voting members, as of now."""


@dataclass(slots=True)
class _Round:
    number: int
    term: int
    index: int
    sent_at_s: float
    callbacks: list[Callback]
    confirmed_by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Question:
    number: int
    leader: str
    sent_at_s: float
    callbacks: list[Callback]


class Barriers:
    """``patience_s``: after that a question to the leader is asked again."""

    def __init__(
        self,
        *,
        me: str,
        engine: Leadership,
        emit: Callable[[str, m.Message], None],
        clock: Callable[[], float],
        patience_s: float,
    ) -> None:
        self._me = me
        self._engine = engine
        self._emit = emit
        self._clock = clock
        self._patience_s = patience_s
        # An answer to a question of this node's last life must not answer one of this life, so numbers go on.
        self._number = int(clock() * 1e9)
        self._waiting: list[Callback] = []
        self._round: _Round | None = None
        self._question: _Question | None = None

    def ask(self, callback: Callback) -> None:
        """``callback`` gets an index that is at least the commit index of now, or None. ``tick`` sends the question."""
        self._waiting.append(callback)

    def tick(self) -> None:
        """Begin what can begin, end what cannot end well any more."""
        self._end_lost_round()
        self._end_lost_question()
        if not self._waiting:
            return
        if self._engine.is_leader:
            if self._round is None and self._engine.leads_with_committed_term:
                self._begin_round()
        elif self._question is None:
            self._ask_leader()

    @property
    def due_s(self) -> float:
        """When ``tick`` loses its patience, if nothing is heard until then."""
        asked = self._question if self._round is None else self._round
        return float("inf") if asked is None else asked.sent_at_s + self._patience_s

    def close(self) -> None:
        """Everyone who waits gets None."""
        for callbacks in (self._waiting, *(x.callbacks for x in (self._round, self._question) if x is not None)):
            _answer(callbacks, None)
        self._waiting, self._round, self._question = [], None, None

    # --- leader --------------------------------------------------------------------------------------------------

    def _begin_round(self) -> None:
        self._number += 1
        callbacks, self._waiting = self._waiting, []
        self._round = _Round(self._number, self._engine.term, self._engine.commit_index, self._clock(), callbacks)
        for peer in self._engine.peers:
            self._emit(peer, m.Probe(self._engine.term, self._number))
        self._finish_round()

    def _end_lost_round(self) -> None:
        current = self._round
        if current is None:
            return
        if not self._engine.is_leader or self._engine.term != current.term:
            self._round = None
            _answer(current.callbacks, None)
        elif self._clock() - current.sent_at_s > self._patience_s:
            # A probe was lost with its connection: the same question again, nothing changes in what it proves.
            current.sent_at_s = self._clock()
            for peer in self._engine.peers - current.confirmed_by:
                self._emit(peer, m.Probe(current.term, current.number))

    def receive_probe(self, peer: str, message: m.Probe) -> None:
        """A member confirms unless it knows of a newer term: then a majority may have elected someone else. One that
        rejoins may have forgotten it."""
        if not self._engine.takes_part:
            return
        if message.term >= self._engine.term:
            self._emit(peer, m.ProbeAck(message.term, message.number))
        else:
            self._emit(peer, m.StaleTerm(self._engine.term))

    def receive_probe_ack(self, peer: str, message: m.ProbeAck) -> None:
        current = self._round
        if current is None or (message.number, message.term) != (current.number, current.term):
            return
        if peer in self._engine.peers:
            current.confirmed_by.add(peer)
        self._finish_round()

    def _finish_round(self) -> None:
        current = self._round
        assert current is not None
        majority = (len(self._engine.peers) + 1) // 2 + 1
        if len(current.confirmed_by & self._engine.peers) + 1 < majority:
            return
        self._round = None
        still_leads = self._engine.is_leader and self._engine.term == current.term
        _answer(current.callbacks, current.index if still_leads else None)
        self.tick()

    def receive_request(self, peer: str, message: m.ReadIndexRequest) -> None:
        """A follower's reads wait like our own; a node that does not lead says so."""
        if not self._engine.is_leader:
            self._emit(peer, m.ReadIndexAnswer(self._engine.term, message.number, None))
            return
        self.ask(lambda index: self._emit(peer, m.ReadIndexAnswer(self._engine.term, message.number, index)))
        self.tick()

    # --- follower ------------------------------------------------------------------------------------------------

    def _ask_leader(self) -> None:
        leader = self._engine.leader_id
        if leader is None or leader == self._me:
            callbacks, self._waiting = self._waiting, []
            _answer(callbacks, None)
            return
        self._number += 1
        callbacks, self._waiting = self._waiting, []
        self._question = _Question(self._number, leader, self._clock(), callbacks)
        self._emit(leader, m.ReadIndexRequest(self._engine.term, self._number))

    def _end_lost_question(self) -> None:
        question = self._question
        if question is None:
            return
        if self._engine.leader_id != question.leader or self._clock() - question.sent_at_s > self._patience_s:
            self._question = None
            _answer(question.callbacks, None)

    def receive_answer(self, peer: str, message: m.ReadIndexAnswer) -> None:
        question = self._question
        if question is None or (peer, message.number) != (question.leader, question.number):
            return
        self._question = None
        _answer(question.callbacks, message.index)
        self.tick()


def _answer(callbacks: list[Callback], index: int | None) -> None:
    for callback in callbacks:
        callback(index)
