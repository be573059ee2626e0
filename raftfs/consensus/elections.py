"""When an election may begin, and whose: pre-vote, loyalty to a live leader, and a quick end for a dead one.

PySyncObj's own election timer is set out of reach. A follower that hears no leader for its timeout first asks the
others whether they would vote for it (pre-vote: Raft dissertation, section 9.6); only a majority of yeses starts a
real election, so a node that was cut off comes back without a higher term. Nobody grants a pre-vote or a vote while it
hears a live leader (section 4.2.3). A leader whose process dies closes its connections: a follower that sees this
asks at once instead of waiting for the timeout; the others confirm only if they lost the leader too, so one broken
link deposes nobody. Whoever still hears the leader when it is asked remembers that, and says yes as soon as it has lost
the leader itself: followers learn of a death one after the other, and the first one must not have to ask again.
Sans-IO: ``tick``, ``receive_*`` and ``lost`` move it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

from raftfs.config import RaftTimes
from raftfs.consensus import messages as m

_SUSPICION_S_MAX: Final = 0.005  # followers that saw the same death ask one after the other
_SUSPECT_AGAIN_S: Final = 0.1  # the next try if nothing came of one; also the time that another one's election gets


class Voter(Protocol):
    """What elections ask the engine."""

    @property
    def term(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def leader_id(self) -> str | None: ...
    @property
    def leader_heard_s(self) -> float:
        """When this node last heard the leader of its term."""

    @property
    def last_entry(self) -> tuple[int, int]:
        """(term, index) of the last log entry: logs are compared in this order."""

    def begin_election(self) -> None:
        """Start a real election at the next tick."""


class Elections:
    """``peers`` are the other voting members, as of now. One member alone elects itself at once."""

    def __init__(
        self,
        *,
        me: str,
        peers: frozenset[str],
        voter: Voter,
        times: RaftTimes,
        emit: Callable[[str, m.Message], None],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._me = me
        self.peers = peers
        self._voter = voter
        self._times = times
        self._emit = emit
        self._clock = clock
        self._rng = rng
        self.stands = True  # whether this node asks for votes at all
        self.votes = True  # whether it gives any
        self.heard_s: dict[str, float] = {}
        """when each other member was last heard"""
        self._lost: set[str] = set()
        self._asked_term = 0  # the term for which pre-votes are being gathered, 0 if none
        self._granted: set[str] = set()
        self._put_off: dict[str, tuple[m.PreVote, float]] = {}
        """who got no yes because a leader was heard here: what was asked, and when"""
        self._quiet_since_s = clock()
        self._timeout_s = self._draw()
        self._ask_at_s: float | None = None

    def _draw(self) -> float:
        return self._rng.uniform(self._times.election_timeout_ms_min, self._times.election_timeout_ms_max) / 1000

    # --- the leader's life ---------------------------------------------------------------------------------------

    def heard(self, peer: str) -> None:
        """Any message from ``peer``: it is there."""
        self._lost.discard(peer)
        self.heard_s[peer] = self._clock()

    def lost(self, peer: str) -> None:
        """``peer`` closed its connection to us."""
        self._lost.add(peer)
        if peer == self._voter.leader_id and not self._voter.is_leader:
            self._ask_at_s = self._clock() + self._rng.uniform(0, _SUSPICION_S_MAX)

    def _follows_live_leader(self) -> bool:
        """Whether this node leads, or heard a leader that is still connected within the shortest election timeout."""
        if self._voter.is_leader:
            return True
        leader = self._voter.leader_id
        if leader is None or leader in self._lost:
            return False
        return self._clock() - self._voter.leader_heard_s < self._times.election_timeout_ms_min / 1000

    # --- asking --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Ask for pre-votes if it is time."""
        now_s = self._clock()
        if self._follows_live_leader():
            self._asked_term = 0
        elif self._put_off:
            self._grant_what_was_put_off(now_s)
        if self._voter.is_leader or not self.stands:
            self._quiet_since_s, self._ask_at_s, self._asked_term = now_s, None, 0
            return
        if self._ask_at_s is not None and now_s >= self._ask_at_s:
            self._ask_at_s = None
            if not self._follows_live_leader():
                self._ask(now_s)
                self._wait(now_s)
        elif now_s - max(self._quiet_since_s, self._voter.leader_heard_s) > self._timeout_s:
            self._ask(now_s)

    def _wait(self, now_s: float) -> None:
        """Let an election that may be under way end before this node asks (again) because it lost its leader."""
        self._ask_at_s = now_s + _SUSPECT_AGAIN_S * (1 + self._rng.random())

    @property
    def due_s(self) -> float:
        """When ``tick`` has something to do, if nothing happens until then."""
        if self._voter.is_leader:
            return float("inf")
        heard_s, due_s = self._voter.leader_heard_s, float("inf")
        if self._put_off:
            due_s = heard_s + self._times.election_timeout_ms_min / 1000
        if self.stands:
            due_s = min(due_s, max(self._quiet_since_s, heard_s) + self._timeout_s)
            if self._ask_at_s is not None:
                due_s = min(due_s, self._ask_at_s)
        return due_s

    def _ask(self, now_s: float) -> None:
        self._quiet_since_s, self._timeout_s = now_s, self._draw()
        self._asked_term = self._voter.term + 1
        self._granted = set()
        last_term, last_index = self._voter.last_entry
        for peer in self.peers:
            self._emit(peer, m.PreVote(self._asked_term, last_index, last_term))
        self._count()

    def receive_grant(self, peer: str, message: m.PreVoteGrant) -> None:
        if peer in self.peers and message.term == self._asked_term == self._voter.term + 1:
            self._granted.add(peer)
            self._count()

    def _count(self) -> None:
        if not self._follows_live_leader() and (len(self._granted & self.peers) + 1) * 2 > len(self.peers) + 1:
            self._asked_term = 0
            self._voter.begin_election()

    # --- being asked ---------------------------------------------------------------------------------------------

    def receive_pre_vote(self, peer: str, message: m.PreVote) -> None:
        """A yes changes nothing here: no term, no vote, only patience with the one that asks."""
        if message.term <= self._voter.term:
            self._emit(peer, m.StaleTerm(self._voter.term))
            return
        if not self.votes:
            return
        if self._follows_live_leader():
            self._put_off[peer] = message, self._clock()
        elif self._may_lead(peer, message):
            self._grant(peer, message)

    def _may_lead(self, peer: str, message: m.PreVote) -> bool:
        """Whether ``peer``'s log is as good as ours, and nobody has to give way."""
        theirs, ours = (message.last_log_term, message.last_log_index), self._voter.last_entry
        # Both ask at the same moment with equal logs: one of them must give way, or the votes split.
        return theirs > ours or (theirs == ours and not (self._asked_term and peer < self._me))

    def _grant(self, peer: str, message: m.PreVote) -> None:
        self._asked_term = 0
        self._let_elect()
        self._emit(peer, m.PreVoteGrant(message.term))

    def _grant_what_was_put_off(self, now_s: float) -> None:
        """This node has lost the leader, too: now the best of those who asked lately gets its yes."""
        recent_s = now_s - self._times.election_timeout_ms_min / 1000
        asked = [
            ((message.last_log_term, message.last_log_index, peer), message)
            for peer, (message, asked_s) in self._put_off.items()
            if asked_s >= recent_s and message.term > self._voter.term and self._may_lead(peer, message)
        ]
        self._put_off.clear()
        if asked:
            (_, _, peer), message = max(asked, key=lambda one: one[0])
            self._grant(peer, message)

    def _let_elect(self) -> None:
        """Patience with the one who got our word."""
        now_s = self._clock()
        self._quiet_since_s = now_s
        if self._ask_at_s is not None:
            self._wait(now_s)

    def refuses(self, message: m.VoteRequest) -> bool:
        """Whether a real vote request is not even looked at: a live leader is heard, and did not ask for it."""
        if not self.votes:
            return True
        return self._follows_live_leader() and not self._voter.is_leader and not message.transfer

    def voted(self) -> None:
        """A vote was given: let that election end before asking for another one."""
        self._let_elect()
