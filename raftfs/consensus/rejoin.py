"""A member that lost a part of what it keeps comes back without endangering what it once promised.

Votes and acknowledgements of a member bind it for ever: others count on them. A member whose log, state or term was
damaged no longer knows what it promised, so it *rejoins*, in three stages that its mark on the disk outlives
restarts in:

- ``terms``: it does not know its term, and so not for whom it voted. It hears nobody until every other member has
  told its own term. Whoever got its vote had made its own term durable before it asked, so the highest of these terms
  is at least that of every vote. It adopts it, with its vote given to itself, and then knows its term again. A member
  that rejoins, too, may have forgotten its term, but then its candidacies ended with its process; the elections that
  were won are known to one of any majority, so enough of the others must be sure of their terms.
- ``log``: its term is known, so whatever it acknowledged went to leaders of that term or of older ones. It follows, but
  takes no part: it gives no vote and no pre-vote, stands for no election, confirms no ReadIndex probe, and what it
  acknowledges is not counted. It asks the leader for the last index of its log. When its own log, verified against
  this leader in this term, is durable up to there, it holds again all that it can ever have acknowledged: what went to
  this leader is in this leader's log, and what older leaders could commit is in it by leader completeness, since no
  vote of this member was part of an election after the damage.
- ``state``: it is a full member again, but what it applied may be far behind. Nobody reads here until it has applied
  the leader's commit index.

The leader is asked for its last index and not for its commit index, because an acknowledgement from before the damage
may still be on its way and commit an entry later. Questions carry a fresh random number, so that no answer from before
this start of the process is taken for one to it. docs/design/rejoin.md has the whole argument. Sans-IO.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from raftfs.consensus import messages as m

Stage = Literal["terms", "log", "state"]
STAGES: Final[tuple[Stage, ...]] = ("terms", "log", "state")

_ELECTIONS: Final = (m.VoteRequest, m.PreVote, m.TimeoutNow)


class Mark:
    """Whether a member rejoins, and where it stands: this one in memory alone, ``RejoinFile`` on the disk."""

    def __init__(self, stage: Stage | None = None) -> None:
        self.stage = stage

    def keep(self, stage: Stage | None) -> None:
        """Durable when it returns; None: all is well again."""
        self.stage = stage


class Follower(Protocol):
    """What rejoining asks the engine."""

    @property
    def peers(self) -> frozenset[str]:
        """The other voting members, as this one's log has them."""

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
    def last_entry(self) -> tuple[int, int]:
        """(term, index) of the last log entry."""

    @property
    def verified_index(self) -> int:
        """Up to where the log is durable here and equals that of the present term's leader; 0 if not known."""

    def adopt(self, term: int) -> None:
        """Make ``term`` the current one, durably, without a vote to give in it."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What a leader said: the log is whole again at ``last_index``, the state at ``commit_index`` (None: it cannot say
    yet)."""

    leader: str
    term: int
    last_index: int
    commit_index: int | None


class Rejoin:
    """``mark.stage`` None: a member like any other. Numbers of questions begin at a random one, so that those of an
    earlier life are never met."""

    def __init__(
        self,
        *,
        follower: Follower,
        emit: Callable[[str, m.Message], None],
        clock: Callable[[], float],
        patience_s: float,
        mark: Mark,
        rng: random.Random,
    ) -> None:
        self.learned: Callable[[], frozenset[str]] = frozenset
        """voting members that this one has heard of, although its own log may not name them"""
        self._follower = follower
        self._emit = emit
        self._clock = clock
        self._patience_s = patience_s
        self._mark = mark
        self._stage = mark.stage
        self._number = rng.getrandbits(62) if mark.stage is not None else 0
        self._asked_s = self._looked_s = float("-inf")
        self._asked: tuple[str, int] | None = None  # (leader, term) of the question that is open
        self._terms: dict[str, m.RejoinAnswer] = {}
        self._target: _Target | None = None
        self._applied_index = 0

    @property
    def stage(self) -> Stage | None:
        """Where this member stands; None: nothing is missing."""
        return self._stage

    @property
    def takes_part(self) -> bool:
        """Whether this member may vote, lead, confirm, and be counted."""
        return self._stage not in ("terms", "log")

    def shuts_out(self, message: m.Message) -> bool:
        """Whether a message is not even looked at."""
        if self._stage == "terms":
            return not isinstance(message, m.RejoinQuestion | m.RejoinAnswer)
        return self._stage == "log" and isinstance(message, _ELECTIONS)

    def progress(self) -> str | None:
        """How far it is, for people; None if nothing is missing."""
        if self._stage is None:
            return None
        if self._stage == "terms":
            return f"the term file was lost; waiting to hear the term of {', '.join(sorted(self._unheard()))}"
        target = self._current_target()
        if target is None:
            return "waiting for a leader"
        if self._stage == "log":
            return f"the log is verified up to index {self._follower.verified_index} of {target.last_index}"
        return f"the state has applied index {self._applied_index} of {target.commit_index or 'an unknown one'}"

    @property
    def due_s(self) -> float:
        """When ``tick`` has something to do, if nothing happens until then."""
        return float("inf") if self._stage is None else self._looked_s + self._patience_s

    # --- asking --------------------------------------------------------------------------------------------------

    def tick(self, applied_index: int) -> None:
        """Ask what has to be asked, and go on to the next stage when it is time."""
        if self._stage is None:
            return
        self._applied_index, self._looked_s = applied_index, self._clock()
        if self._stage == "terms":
            self._ask_for_terms()
        else:
            self._ask_leader()
            self._advance()

    def _ask_for_terms(self) -> None:
        if self._terms_suffice():
            self._adopt(max(self._follower.term, *(answer.term for answer in self._terms.values())))
        elif self._due():
            for peer in self._unheard():
                self._emit(peer, m.RejoinQuestion(self._follower.term, self._number))

    def _electors(self) -> frozenset[str]:
        """Everybody for whom this member may have voted, as far as it knows."""
        return self._follower.peers | self.learned()

    def _unheard(self) -> frozenset[str]:
        """Whose answer is missing, or not sure."""
        return self._electors() - {peer for peer, answer in self._terms.items() if answer.sure}

    def _terms_suffice(self) -> bool:
        """Everybody has answered, and those that are sure are part of every majority."""
        electors = self._electors()
        sure = sum(self._terms[peer].sure for peer in electors & self._terms.keys())
        return electors <= self._terms.keys() and sure > len(electors) // 2

    def _adopt(self, term: int) -> None:
        self._follower.adopt(term)
        self._enter("log")

    def _ask_leader(self) -> None:
        leader, term = self._follower.leader_id, self._follower.term
        if leader is None or self._follower.is_leader:
            return
        if self._asked != (leader, term):
            self._asked, self._asked_s = (leader, term), float("-inf")
            self._number += 1
        target = self._current_target()
        needs = target is None or (self._stage == "state" and target.commit_index is None)
        if needs and self._due():
            self._emit(leader, m.RejoinQuestion(term, self._number))

    def _due(self) -> bool:
        """Whether to ask, for the first time or again: a question may be lost with its connection."""
        if self._clock() - self._asked_s < self._patience_s:
            return False
        self._asked_s = self._clock()
        return True

    def _current_target(self) -> _Target | None:
        """What the present leader said in the present term; what another one said is of no use."""
        target = self._target
        if target is None or (target.leader, target.term) != (self._follower.leader_id, self._follower.term):
            return None
        return target

    def _advance(self) -> None:
        target = self._current_target()
        if self._stage == "log" and target is not None and self._follower.verified_index >= self._log_target(target):
            self._enter("state")
        if self._stage == "state" and self._state_is_back(target):
            self._enter(None)

    def _log_target(self, target: _Target) -> int:
        return target.last_index

    def _state_is_back(self, target: _Target | None) -> bool:
        if self._follower.leads_with_committed_term:
            return self._applied_index >= self._follower.commit_index
        return target is not None and target.commit_index is not None and self._applied_index >= target.commit_index

    def _enter(self, stage: Stage | None) -> None:
        """The disk first: a member must not take part on the strength of what a crash could take back."""
        self._mark.keep(stage)
        self._stage = stage

    def receive_answer(self, peer: str, message: m.RejoinAnswer) -> None:
        """An answer to the question that is open; others are dropped."""
        if message.number != self._number:
            return
        if self._stage == "terms":
            self._terms[peer] = message
        elif self._stage is not None and self._asked == (peer, message.term) and message.last_index is not None:
            self._target = _Target(peer, message.term, message.last_index, message.commit_index)

    # --- being asked ---------------------------------------------------------------------------------------------

    def receive_question(self, peer: str, message: m.RejoinQuestion) -> None:
        """Another member rejoins."""
        follower = self._follower
        last = follower.last_entry[1] if follower.is_leader else None
        commit = follower.commit_index if follower.leads_with_committed_term else None
        self._emit(peer, m.RejoinAnswer(follower.term, message.number, self.takes_part, last, commit))
