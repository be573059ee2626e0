"""PySyncObj 0.3.17 behind the guard: the one module that builds it, and that knows names which it keeps to itself.

What PySyncObj does here: elections and votes, log matching, counting of replicas, the commit index. It applies
nothing: commands are opaque entries, and the driver applies the journal up to ``safe_index``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from random import Random
from typing import Any, Final

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, syncobj
from pysyncobj.node import Node

from raftfs.config import RaftTimes
from raftfs.consensus import messages as m
from raftfs.consensus.disk import DiskWatch
from raftfs.consensus.elections import Elections
from raftfs.consensus.guard import COMMANDS, Guard
from raftfs.consensus.journal import Journal, PyEntry
from raftfs.consensus.membership import Configuration, check_step, decode_configuration, encode_configuration
from raftfs.consensus.rejoin import Mark, Rejoin
from raftfs.errors import ConfigError
from raftfs.limits import APPEND_MESSAGE_BYTES_MAX, DISK_HANG_TIMEOUTS_MAX, PEER_ENTRIES_IN_FLIGHT_MAX

log = logging.getLogger(__name__)

VERSION: Final = "0.3.17"

NAMES: Final = {
    "_applyCommand": "queues an entry",
    "_checkCommandsToApply": "appends what is queued, now instead of at the next tick",
    "_getLeader": "who leads, as far as this node knows",
    "_isLeader": "whether this node leads",
    "_SyncObj__doChangeCluster": "adds and removes one voting member, at once",
    "_SyncObj__getEntries": "what is sent next: it looks at each entry up to a size, see _bound_walks",
    "_SyncObj__pipeNotifier": "wakes a sleeper in its poller: nobody sleeps there, so it is put to rest",
    "_poller": "asked at each tick about that notifier's pipe and nothing else: put to rest, too",
    "_SyncObj__raftLastApplied": "set once after a restart: what the state machine already holds is not walked again",
}
"""Names of PySyncObj that are not its public interface, and what they are used for."""

_OF_INSTANCES: Final = {"_SyncObj__pipeNotifier", "_poller", "_SyncObj__raftLastApplied"}

_FOREVER_S: Final = 3e8

# It complains of a missing snapshot whenever a member needs one; it never makes any, and the guard sees to that case.
logging.getLogger("pysyncobj.serializer").setLevel(logging.CRITICAL)


class Engine:
    """One Raft member. Not thread-safe; ``tick`` is to be called after every message and every few milliseconds.

    ``base`` is the configuration of the state or the bootstrap, ``base_index`` where it stood in the log; a newer one
    in the log replaces it. With ``bound_only``, members that do not vote get the log only once their UUID is known.
    ``emit(peer, message)`` sends without blocking. Raises ConfigError if another PySyncObj is installed.
    """

    def __init__(
        self,
        *,
        me: str,
        base: Configuration,
        base_index: int = 0,
        journal: Journal,
        applied_index: int,
        times: RaftTimes,
        emit: Callable[[str, m.Message], None],
        clock: Callable[[], float],
        rng: Random,
        guard: type[Guard] = Guard,
        bound_only: bool = False,
        mark: Mark | None = None,
        rejoin: type[Rejoin] = Rejoin,
    ) -> None:
        _check_installed()
        self.me = me
        self.journal = journal
        self._base, self._base_index, self._bound_only = base, base_index, bound_only
        self.configuration, self.configuration_index = base, base_index
        self.on_configuration: Callable[[int, Configuration], None] = lambda _index, _configuration: None
        self._followed: tuple[int, bytes] | None = None
        self.peers = peers = base.voters - {me}
        self.guard = guard(
            peers=peers, journal=journal, emit=emit, clock=clock, heartbeat_s=times.heartbeat_ms / 1000
        )  # fmt: skip
        with _journal_instead(journal):
            self._raft = SyncObj(Node(me), [Node(peer) for peer in peers], conf=_conf(times), transport=self.guard)
        _put_to_rest(self._raft)
        _bound_walks(self._raft)
        self._raft._SyncObj__raftLastApplied = max(1, applied_index)
        self.guard.core = self
        self.elections = Elections(
            me=me, peers=peers, voter=self, times=times, emit=emit, clock=clock, rng=rng
        )  # fmt: skip
        self.guard.on_vote = self.elections.voted
        self.rejoin = rejoin(
            follower=self, emit=emit, clock=clock, patience_s=4 * times.heartbeat_ms / 1000,
            mark=mark or Mark(), rng=rng,
        )  # fmt: skip
        self.stands = True  # whether this node may stand for election, as far as its owner knows
        self._emit, self._clock = emit, clock
        self._patience_s = DISK_HANG_TIMEOUTS_MAX * times.election_timeout_ms_max / 1000
        self.disk = DiskWatch(journal=journal, patience_s=self._patience_s, clock=clock)
        self._yielded_s = float("-inf")
        self._take_members()
        self.follow()

    @property
    def term(self) -> int:
        return int(self._raft.raftCurrentTerm)

    @property
    def is_voter(self) -> bool:
        """Whether this node counts in the configuration that counts here."""
        return self.me in self.configuration.voters

    @property
    def is_leader(self) -> bool:
        return bool(self._raft._isLeader())

    @property
    def leader_id(self) -> str | None:
        leader = self._raft._getLeader()
        return None if leader is None else str(leader.id)

    @property
    def commit_index(self) -> int:
        return int(self._raft.raftCommitIndex)

    @property
    def safe_index(self) -> int:
        """Up to where entries may be applied: committed, and durable here, so that no state outlives its log."""
        return min(self.commit_index, self.journal.durable_index)

    @property
    def leads_with_committed_term(self) -> bool:
        """Whether this node leads and an entry of its own term is committed: only then is its commit index known to
        be current (Raft dissertation, section 6.4)."""
        return self.is_leader and self.journal.term(self.commit_index) == self.term

    @property
    def leader_heard_s(self) -> float:
        return self.guard.leader_heard_s

    @property
    def last_entry(self) -> tuple[int, int]:
        return self.journal.last_term, self.journal.last_index

    @property
    def takes_part(self) -> bool:
        """Whether this member votes, leads, confirms and counts: not while it rejoins."""
        return self.rejoin.takes_part

    @property
    def verified_index(self) -> int:
        """Up to where our log is durable and equals that of the present term's leader; 0 if that is not known."""
        term, index = self.guard.verified
        return min(index, self.journal.durable_index) if term == self.term else 0

    def adopt(self, term: int) -> None:
        """See Guard.adopt."""
        self.guard.adopt(self.me, term)

    def receive(self, peer: str, message: m.Message) -> None:
        """See Guard.receive; what concerns rejoining and elections is judged first."""
        self.elections.heard(peer)
        if self.rejoin.shuts_out(message):
            return
        if isinstance(message, m.RejoinQuestion):
            self.rejoin.receive_question(peer, message)
        elif isinstance(message, m.RejoinAnswer):
            self.rejoin.receive_answer(peer, message)
        elif isinstance(message, m.PreVote):
            self.elections.receive_pre_vote(peer, message)
        elif isinstance(message, m.PreVoteGrant):
            self.elections.receive_grant(peer, message)
        elif isinstance(message, m.TimeoutNow):
            if peer == self.leader_id and message.term == self.term and not self.is_leader and self.is_voter:
                self.guard.transferring = True
                self.begin_election()
        elif not (isinstance(message, m.VoteRequest) and self.elections.refuses(message)):
            self.guard.receive(peer, message)
            self.follow()

    def tick(self) -> None:
        self._mind_disk()
        if self.takes_part:
            self.elections.tick()
        self.guard.resume()
        self._raft.doTick(0.0)
        self.guard.transferring = False

    @property
    def due_s(self) -> float:
        """When ``tick`` has something to do, on a node that does not lead, if nothing happens until then."""
        return min(self.rejoin.due_s, self.elections.due_s) if self.takes_part else self.rejoin.due_s

    def begin_election(self) -> None:
        """PySyncObj's own timer is out of reach; a leader's wish, as it sees it, is what starts its elections."""
        if self.guard.reaches_anyone:
            self.guard.deliver_timeout_now(self._raft._getLeader(), self.term)

    def transfer(self, to: str | None = None) -> bool:
        """As leader, ask a member to take over; False if it does not have all of our log. Without ``to``, of those that
        have it the one that was heard last: another may be frozen, and would lead when it wakes."""
        if to is None:
            whole = [peer for peer in self.peers if self.guard.match_index(peer) == self.journal.last_index]
            to = max(whole, key=lambda peer: self.elections.heard_s.get(peer, 0.0), default=None)
        if to is None:
            return False
        answers: list[Any] = []
        self.guard.resume()
        self._raft.transferLeadership(Node(to), lambda _result, reason: answers.append(reason))
        return answers == [FAIL_REASON.SUCCESS]

    def _mind_disk(self) -> None:
        """A node without room, or whose disk hangs, does not stand for election, and as leader asks another one to
        take over: the others hold its entries."""
        self.disk.tick(self._held_by_others() if self.is_leader else 0)
        self.elections.stands = self.stands and self.is_voter and self.disk.may_lead
        due = self._clock() - self._yielded_s >= self._patience_s
        if self.is_leader and self.peers and due and (self.disk.full or self.disk.should_yield):
            self._yielded_s = self._clock()
            if not self.transfer() and self.disk.should_yield:
                # None has all that waits for our disk. Whoever has the most has all that can be committed.
                best = max(self.peers, key=lambda peer: self.guard.match_index(peer) or 0)
                if (self.guard.match_index(best) or 0) >= self.commit_index:
                    log.warning("the disk does not keep up with the others': handing over to %s", best)
                    self._emit(best, m.TimeoutNow(self.term))

    def _held_by_others(self) -> int:
        """The index up to which a majority holds the log durably that this node is not part of; 0 if there is none."""
        majority = (len(self.peers) + 1) // 2 + 1
        matches = sorted((self.guard.match_index(peer) or 0 for peer in self.peers), reverse=True)
        return matches[majority - 1] if majority <= len(matches) else 0

    def propose(self, data: bytes) -> int | None:
        """Append an entry if this node leads; its index, or None. Whether it will be committed is open."""
        return self._append(bytes([COMMANDS]) + data)

    def change(self, new: Configuration) -> int | None:
        """As ``propose``, for the next configuration, which counts from now on. Raises ValueError saying why it may not
        follow the present one now."""
        if not self.is_leader:
            return None
        self.check_change(new)
        # PySyncObj sends an entry as soon as it is appended. Whoever is removed must not get this one: it would stand
        # for no election any more, and with a longer log refuse the vote that is needed until the change is committed.
        self.guard.dismiss(self.configuration.ids - new.ids)
        index = self._append(encode_configuration(new))
        self.follow()
        self.guard.reopen()
        return index

    def check_change(self, new: Configuration) -> None:
        """Raises ValueError if this leader may not propose ``new`` now.

        Not before an entry of this term is committed (otherwise two leaders could change one configuration to two
        with disjoint majorities: Ongaro, raft-dev, July 2015), and not before the last change is.
        """
        check_step(self.configuration, new)
        if not self.leads_with_committed_term:
            raise ValueError("this leader is too new to change the members; try again")
        if self.configuration_index > self.commit_index:
            raise ValueError("the last change of the members is not finished yet; try again")
        if self.me not in new.voters:
            raise ValueError("a leader cannot end its own membership; let another member lead first")

    def follow(self) -> None:
        """Let the newest configuration in the log count; the one of the state if the log has none after it."""
        newest = self.journal.configuration
        if newest is self._followed:
            return
        self._followed = newest
        if newest is None or newest[0] <= self._base_index:
            self.configuration, self.configuration_index = self._base, self._base_index
        else:
            self.configuration, self.configuration_index = decode_configuration(newest[1]), newest[0]
        self._take_members()
        self.on_configuration(self.configuration_index, self.configuration)

    def _take_members(self) -> None:
        voters = self.configuration.voters - {self.me}
        learners = frozenset(
            member.id for member in self.configuration.members
            if not member.voter and member.id != self.me and (member.uuid or not self._bound_only)
        )  # fmt: skip
        self.guard.members(voters, learners, lambda: self._change_cluster(voters))
        self.peers = self.elections.peers = voters

    def _change_cluster(self, voters: frozenset[str]) -> None:
        for gone in self.peers - voters:
            self._raft._SyncObj__doChangeCluster(("rem", gone, Node(gone)))
        for new in voters - self.peers:
            self._raft._SyncObj__doChangeCluster(("add", new, Node(new)))

    def _append(self, data: bytes) -> int | None:
        if not self.is_leader:
            return None
        before = self.journal.last_index
        self.guard.resume()
        self._raft._applyCommand(data, None)
        while self.is_leader and self.journal.last_index == before:
            # PySyncObj puts off what is queued if the process stands still just now: it would be refused and appended.
            self._raft._checkCommandsToApply()
        return before + 1 if self.journal.last_index == before + 1 else None

    def close(self) -> None:
        """Ends PySyncObj and closes the journal."""
        self._raft.destroy()


class _AtRest:
    """In the place of PySyncObj's poller and of the pipe that wakes it: two system calls less in each turn."""

    def notify(self) -> None:
        pass

    def poll(self, timeout: float) -> None:
        pass


def _put_to_rest(raft: SyncObj) -> None:
    notifier = raft._SyncObj__pipeNotifier
    for end in ("R", "W"):
        os.close(getattr(notifier, f"_PipeNotifier__pipe{end}"))
    raft._SyncObj__pipeNotifier = raft._poller = _AtRest()


def _bound_walks(raft: SyncObj) -> None:
    """For each message to a member that is behind, PySyncObj adds up the lengths of all entries that could go into it:
    tens of thousands, if they are small, of which the guard takes a few. Here it gets no more than may be in flight,
    and asks again if the guard took them all."""
    entries = raft._SyncObj__getEntries

    def bounded(first: int | None, count: int | None = None, bytes_max: int | None = None) -> Sequence[PyEntry]:
        if bytes_max is not None:
            count, bytes_max = PEER_ENTRIES_IN_FLIGHT_MAX, None  # the guard sees to the bytes
        found: Sequence[PyEntry] = entries(first, count, bytes_max)
        return found

    raft._SyncObj__getEntries = bounded


@contextmanager
def engine_time(clock: Callable[[], float]) -> Iterator[None]:
    """PySyncObj, in the whole process, on another clock (seconds, monotonic): it reads a name of its own module."""
    original: Any = syncobj.monotonicTime
    syncobj.monotonicTime = clock
    try:
        yield
    finally:
        syncobj.monotonicTime = original


def _conf(times: RaftTimes) -> SyncObjConf:
    return SyncObjConf(
        autoTick=False,
        appendEntriesUseBatch=False,
        commandsWaitLeader=False,
        dynamicMembershipChange=False,
        useFork=False,
        # Out of reach: elections.py says when.
        raftMinTimeout=_FOREVER_S / 3,
        raftMaxTimeout=_FOREVER_S / 2,
        appendEntriesPeriod=times.heartbeat_ms / 1000,
        # A leader without answers from a majority for this long steps down.
        leaderFallbackTimeout=times.election_timeout_ms_max / 1000,
        connectionTimeout=_FOREVER_S,
        # Over the largest entry: PySyncObj's splitting of entries is broken and must never run.
        appendEntriesBatchSizeBytes=APPEND_MESSAGE_BYTES_MAX,
        # Its snapshots are never used: the state is a database already.
        logCompactionMinEntries=2**62,
        logCompactionMinTime=_FOREVER_S,
    )


@contextmanager
def _journal_instead(journal: Journal) -> Iterator[None]:
    """While PySyncObj is built, its journal factory answers with ours; it is looked up in its module then."""
    original: Any = syncobj.createJournal
    syncobj.createJournal = lambda _file: journal
    try:
        yield
    finally:
        syncobj.createJournal = original


@cache
def _check_installed() -> None:
    found = metadata.version("pysyncobj")
    missing = [name for name in NAMES if name not in _OF_INSTANCES and not hasattr(SyncObj, name)]
    if found != VERSION or missing:
        raise ConfigError(
            f"raftfs needs pysyncobj {VERSION}, found {found}{f' without {missing}' if missing else ''}; "
            f"run: pip install pysyncobj=={VERSION}"
        )
