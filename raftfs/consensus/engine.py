"""PySyncObj 0.3.17 behind the guard: the one module that builds it, and that knows names which it keeps to itself.

What PySyncObj does here: elections and votes, log matching, counting of replicas, the commit index. It applies
nothing: commands are opaque entries, and the driver applies the journal up to ``safe_index``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from random import Random
from typing import Any, Final

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, syncobj
from pysyncobj.node import Node

from raftfs.config import RaftTimes
from raftfs.consensus import messages as m
from raftfs.consensus.elections import Elections
from raftfs.consensus.guard import COMMANDS, Guard
from raftfs.consensus.journal import Journal
from raftfs.errors import ConfigError
from raftfs.limits import APPEND_MESSAGE_BYTES_MAX

VERSION: Final = "0.3.17"

NAMES: Final = {
    "_applyCommand": "queues an entry",
    "_checkCommandsToApply": "appends what is queued, now instead of at the next tick",
    "_getLeader": "who leads, as far as this node knows",
    "_isLeader": "whether this node leads",
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

    ``emit(peer, message)`` sends without blocking. Raises ConfigError if another PySyncObj is installed.
    """

    def __init__(
        self,
        *,
        me: str,
        peers: frozenset[str],
        journal: Journal,
        applied_index: int,
        times: RaftTimes,
        emit: Callable[[str, m.Message], None],
        clock: Callable[[], float],
        rng: Random,
        guard: type[Guard] = Guard,
    ) -> None:
        _check_installed()
        self.journal = journal
        self.guard = guard(
            peers=peers, journal=journal, emit=emit, clock=clock, heartbeat_s=times.heartbeat_ms / 1000
        )  # fmt: skip
        with _journal_instead(journal):
            self._raft = SyncObj(Node(me), [Node(peer) for peer in peers], conf=_conf(times), transport=self.guard)
        _put_to_rest(self._raft)
        self._raft._SyncObj__raftLastApplied = max(1, applied_index)
        self.guard.core = self
        self.elections = Elections(
            me=me, peers=peers, voter=self, times=times, emit=emit, clock=clock, rng=rng
        )  # fmt: skip
        self.guard.on_vote = self.elections.voted

    @property
    def term(self) -> int:
        return int(self._raft.raftCurrentTerm)

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

    def receive(self, peer: str, message: m.Message) -> None:
        """See Guard.receive; what concerns elections is judged first."""
        self.elections.heard(peer)
        if isinstance(message, m.PreVote):
            self.elections.receive_pre_vote(peer, message)
        elif isinstance(message, m.PreVoteGrant):
            self.elections.receive_grant(peer, message)
        elif isinstance(message, m.TimeoutNow):
            if peer == self.leader_id and message.term == self.term and not self.is_leader:
                self.guard.transferring = True
                self.begin_election()
        elif not (isinstance(message, m.VoteRequest) and self.elections.refuses(message)):
            self.guard.receive(peer, message)

    def tick(self) -> None:
        self.elections.tick()
        self.guard.resume()
        self._raft.doTick(0.0)
        self.guard.transferring = False

    def begin_election(self) -> None:
        """PySyncObj's own timer is out of reach; a leader's wish, as it sees it, is what starts its elections."""
        if self.guard.reaches_anyone:
            self.guard.deliver_timeout_now(self._raft._getLeader(), self.term)

    def transfer(self) -> bool:
        """As leader, ask the member with the newest log to take over; False if none has all of ours."""
        answers: list[Any] = []
        self.guard.resume()
        self._raft.transferLeadership(None, lambda _result, reason: answers.append(reason))
        return answers == [FAIL_REASON.SUCCESS]

    def propose(self, data: bytes) -> int | None:
        """Append an entry if this node leads; its index, or None. Whether it will be committed is open."""
        if not self.is_leader:
            return None
        before = self.journal.last_index
        self.guard.resume()
        self._raft._applyCommand(bytes([COMMANDS]) + data, None)
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
