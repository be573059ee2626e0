"""One member of the Raft group on the running asyncio loop: messages, timers, disk and state machine brought together.

Everything here runs on the loop, except two kinds of work in threads of their own: writing and fsyncing the journal,
and applying entries to the state machine. Work is done in *turns*: whatever happened (messages, an fsync that ended,
proposals) asks for a turn, and one turn at the end of the loop's iteration serves all of it.
"""

from __future__ import annotations

import asyncio
import errno
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

from raftfs.config import RaftTimes
from raftfs.consensus import messages as m
from raftfs.consensus.journal import Flush
from raftfs.consensus.leaderwatch import LEADERLESS_S_MAX, LeaderWatch
from raftfs.consensus.membership import Configuration
from raftfs.consensus.parts import Applier, ConsensusStatus, Entry, LogSizes, Parts, PeerStatus, decode_entry
from raftfs.consensus.peers import Callbacks, PeerTransport
from raftfs.consensus.proposals import check_batches
from raftfs.consensus.rejoin import Mark
from raftfs.consensus.roster import Roster
from raftfs.consensus.turns import Turns
from raftfs.errors import Conflict, DeadlineExceeded, NotLeader, StorageFull, TooLarge, Unavailable
from raftfs.limits import COMMAND_BYTES_MAX

log = logging.getLogger(__name__)

_APPLY_ENTRIES_MAX: Final = 64
_APPLY_BYTES_MAX: Final = 4 * 1024 * 1024
_DISK_FULL_RETRY_S: Final = 1.0
_LEADER_TICK_S_MAX: Final = 0.02  # a leader looks at its heartbeats and its quorum at least this often


class Consensus:
    """``configuration``: the members as the state machine has them from entry ``configuration_index``, or at first from
    the bootstrap (index 0). ``applied_index``: what the state machine has. ``roster``: whose UUIDs bind the names.
    ``on_behind(leader)`` is called when the leader's log begins after the end of ours: only its state helps then.
    ``mark``: whether this member rejoins (see rejoin.py).

    Raises CorruptData if the journal in ``data_dir`` is damaged or ends before ``applied_index``.
    """

    def __init__(
        self,
        *,
        me: str,
        configuration: Configuration,
        configuration_index: int = 0,
        data_dir: Path,
        applier: Applier,
        applied_index: int,
        times: RaftTimes,
        transport: PeerTransport,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
        parts: Parts | None = None,
        sizes: LogSizes | None = None,
        on_behind: Callable[[str], None] = lambda _leader: None,
        roster: Roster | None = None,
        mark: Mark | None = None,
    ) -> None:
        parts = parts or Parts()
        self._me = me
        self._mark = mark or Mark()
        self._roster = roster or Roster(me=me, uuid="", configuration=configuration, index=configuration_index)
        self._applier = applier
        self._transport = transport
        self._clock = clock
        self._times = times
        self.applied_index = applied_index
        self._sizes = sizes or LogSizes()
        self._journal = parts.journal(
            data_dir / "journal", commit_floor=applied_index, segment_bytes=self._sizes.segment_bytes
        )
        self._engine = parts.engine(
            me=me, base=configuration, base_index=configuration_index, journal=self._journal,
            applied_index=applied_index, times=times, emit=transport.send, clock=clock, rng=rng or Random(),
            bound_only=self._roster.checks, mark=self._mark,
        )  # fmt: skip
        self._engine.guard.on_behind = on_behind
        self._engine.on_configuration = self._roster.follow
        self._roster.follow(self._engine.configuration_index, self._engine.configuration)
        self._engine.rejoin.learned = lambda: frozenset(name for name, m in self._roster.book.items() if m.voter)
        self._roster.fresh = self._has_no_data
        self._barriers = parts.barriers(
            me=me, engine=self._engine, emit=transport.send, clock=clock,
            patience_s=4 * times.heartbeat_ms / 1000,
        )  # fmt: skip
        self._proposals = parts.proposals(self._append)
        self._applied_waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waiter_numbers = itertools.count()  # those who wait for the same index go in the order in which they came
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._apply_thread = ThreadPoolExecutor(1, thread_name_prefix="apply")
        self._turns = Turns(self._turn, clock)
        self._ask_turn = self._turns.ask
        self._watch = LeaderWatch(clock)
        self._transferring = False
        self._held_index: int | None = None
        self._full: set[str] = set()  # what has no room on the disk: "log", "state"
        self._writing: asyncio.Task[None] | None = None
        self._apply_wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[BaseException]

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin. ``failed`` gets an exception when the node must not go on."""
        self.failed = asyncio.get_running_loop().create_future()
        self._transport.on = Callbacks(self._message, self._connected, self._disconnected, self._lost)
        self._tasks = [asyncio.create_task(self._keep_applying(), name="raft-apply")]
        self._ask_turn()

    async def stop(self) -> None:
        """Stop; writes under way end as unknown, barriers as unavailable."""
        self._transport.on = Callbacks()
        self._barriers.close()
        self._turns.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writing is not None:
            if self._full:
                self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        self._apply_thread.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        self._proposals.close()
        self._engine.close()

    # --- what the service uses -----------------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        return self._engine.is_leader

    @property
    def leader_id(self) -> str | None:
        return self._engine.leader_id

    @property
    def term(self) -> int:
        return self._engine.term

    @property
    def commit_index(self) -> int:
        return self._engine.commit_index

    @property
    def configuration(self) -> Configuration:
        """The members that count here now; the last change may not be committed yet."""
        return self._engine.configuration

    @property
    def rejoining(self) -> str | None:
        """How far a member is whose data were damaged: nobody may read here yet. None if it is whole."""
        return self._engine.rejoin.progress()

    @property
    def awaited(self) -> list[str]:
        """Whom this node, which has no data, must hear before it votes; none once it has data."""
        return [] if self._roster.formed else self._roster.awaited

    def last_contact_s(self) -> float | None:
        """Seconds since this node heard a leader (0 if it leads); None if it never did."""
        if self._engine.is_leader:
            return 0.0
        heard_s = self._engine.guard.leader_heard_s
        return None if heard_s == float("-inf") else max(0.0, self._clock() - heard_s)

    def status(self) -> ConsensusStatus:
        return ConsensusStatus(
            term=self._engine.term,
            leader_id=self._engine.leader_id,
            is_leader=self._engine.is_leader,
            commit_index=self._engine.commit_index,
            applied_index=self.applied_index,
            quorum=self._in_touch(),
            peers={peer: self._peer_status(peer) for peer in sorted(self.configuration.ids - {self._me})},
        )

    def _in_touch(self) -> bool:
        """Whether this node leads or heard a leader lately: one without a quorum steps down within the timeout."""
        contact_s = self.last_contact_s()
        return contact_s is not None and contact_s * 1000 <= self._times.election_timeout_ms_max

    def _peer_status(self, peer: str) -> PeerStatus:
        match = self._engine.guard.match_index(peer) if self._engine.is_leader else None
        return PeerStatus(self._transport.connected(peer), match, self._transport.refusal(peer))

    async def propose(self, command: bytes, *, timeout_s: float) -> Any:
        """Replicate and apply a command; its result here. Errors: see Proposals.submit, and TooLarge, StorageFull."""
        if not self._engine.is_leader:
            raise NotLeader("this node is not the leader", outcome="not_applied")
        if len(command) > COMMAND_BYTES_MAX:
            raise TooLarge(f"a command of {len(command)} bytes is over {COMMAND_BYTES_MAX}", outcome="not_applied")
        if self._full:
            raise StorageFull("the leader's disk is full; free some space on it", outcome="not_applied")
        return await self._proposals.submit(command, self._ask_turn, timeout_s=timeout_s)

    async def change_members(self, change: Callable[[Configuration], Configuration], *, timeout_s: float) -> None:
        """As leader, make ``change(present)`` the configuration, and wait until that is committed and applied here.

        Raises Conflict if it may not follow the present one now, and what ``propose`` raises.
        """

        def place() -> tuple[int, int] | None:
            try:
                index = self._engine.change(change(self._engine.configuration))
            except ValueError as error:
                raise Conflict(str(error), outcome="not_applied", retry_after_s=1.0) from None
            return None if index is None else (index, self._engine.term)

        await self._proposals.submit_alone(place, self._ask_turn, timeout_s=timeout_s)

    def hold_log(self, index: int | None) -> None:
        """Do not cut entries from ``index`` on: a member that gets our state of then will need them. None ends it."""
        self._held_index = index

    async def transfer(self, *, timeout_s: float, to: str | None = None) -> bool:
        """As leader, hand the leadership to ``to`` (the member with the newest log), and lose nothing: proposals wait
        until that member has the whole log, and are sent on to it afterwards. False if nobody took over in time."""
        self._transferring = True
        try:
            async with asyncio.timeout(timeout_s):
                while self._engine.is_leader and not self.failed.done():
                    if self._journal.last_index == self.applied_index:
                        self._engine.transfer(to)
                    self._ask_turn()
                    await asyncio.sleep(self._times.heartbeat_ms / 1000)
        except TimeoutError:
            pass
        finally:
            self._transferring = False
        return not self._engine.is_leader

    async def barrier(self, *, timeout_s: float) -> int:
        """A ReadIndex round: returns when everything acknowledged before the call is applied here.

        Returns that index. Raises Unavailable (no leader with a quorum) or DeadlineExceeded.
        """
        try:
            async with asyncio.timeout(timeout_s):
                index = await self._read_index()
                await self._wait_applied(index)
                return index
        except TimeoutError:
            if self._watch.leaderless_s() > 0 or not self._in_touch():
                raise self._no_quorum() from None
            raise DeadlineExceeded(f"this node did not catch up with the leader within {timeout_s:g} s") from None

    async def _read_index(self) -> int:
        while True:
            if self._watch.leaderless_s() > LEADERLESS_S_MAX:
                raise self._no_quorum()
            answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
            self._barriers.ask(lambda index, answer=answer: None if answer.done() else answer.set_result(index))  # type: ignore[misc]
            self._ask_turn()
            index = await answer
            if index is not None:
                return index
            await self._watch.wait()

    def _no_quorum(self) -> Unavailable:
        return Unavailable(
            "no leader with a majority of the members can be reached; ask with consistency=stale for this "
            "node's own state",
            retry_after_s=1.0,
        )

    async def _wait_applied(self, index: int) -> None:
        if self.applied_index < index:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._applied_waiters, (index, next(self._waiter_numbers), waiter))
            await waiter

    # --- events --------------------------------------------------------------------------------------------------

    def _message(self, peer: str, message: m.Message) -> None:
        if self.failed.done():
            return
        try:
            if isinstance(message, m.Probe):
                self._barriers.receive_probe(peer, message)
            elif isinstance(message, m.ProbeAck):
                self._barriers.receive_probe_ack(peer, message)
            elif isinstance(message, m.ReadIndexRequest):
                self._barriers.receive_request(peer, message)
            elif isinstance(message, m.ReadIndexAnswer):
                self._barriers.receive_answer(peer, message)
            else:
                if isinstance(message, m.Append):
                    check_batches(message)
                self._engine.receive(peer, message)
        except m.ProtocolViolation:
            raise
        except Exception as error:
            self._fail(error)
            return
        self._ask_turn()

    def _connected(self, peer: str) -> None:
        self._engine.guard.connected(peer)
        self._ask_turn()

    def _disconnected(self, peer: str) -> None:
        self._engine.guard.disconnected(peer)

    def _lost(self, peer: str) -> None:
        self._engine.elections.lost(peer)
        self._ask_turn()

    def _append(self, data: bytes) -> tuple[int, int] | None:
        index = self._engine.propose(data)
        return None if index is None else (index, self._engine.term)

    # --- turns ---------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        if self.failed.done():
            return
        try:
            self._roster.form()
            self._engine.disk.full, self._engine.stands = bool(self._full), self._roster.formed
            self._engine.tick()
            self._engine.rejoin.tick(self.applied_index)
            self._watch_leader()
            self._roster.settle(self._engine.commit_index)
            self._check_identities()
            if self._engine.is_leader:
                if not self._transferring and self._all_known():
                    self._proposals.pump(self._journal.last_index - self.applied_index)
            else:
                self._proposals.refuse_waiting()
            self._barriers.tick()
        except Exception as error:
            self._fail(error)
            return
        self._begin_write()
        if self._engine.safe_index > self.applied_index:
            self._apply_wanted.set()
        self._turns.due(self._next_due_s(self._clock()))

    def _next_due_s(self, now_s: float) -> float:
        """When something happens by itself, by this node's clock."""
        if self._engine.is_leader:
            return now_s + min(_LEADER_TICK_S_MAX, self._times.heartbeat_ms / 3000)
        longest_s = self._times.election_timeout_ms_max / 1000
        due_s = min(self._engine.due_s, self._barriers.due_s, now_s + longest_s)
        if self._watch.seen is not None:
            due_s = min(due_s, self._engine.leader_heard_s + longest_s)
        return due_s

    def _watch_leader(self) -> None:
        """Remember who leads and since when nobody does. PySyncObj goes on naming a leader that has fallen silent."""
        self._watch.note(self._engine.leader_id if self._in_touch() else None, self._engine.term)

    def _fail(self, error: BaseException) -> None:
        """This node must not go on."""
        if not self.failed.done():
            log.critical("this node stops: %s", error, exc_info=error)
            self.failed.set_result(error)

    # --- the journal's thread ------------------------------------------------------------------------------------

    def _begin_write(self) -> None:
        flush = self._journal.take()
        if flush is not None:
            self._writing = asyncio.create_task(self._write(flush), name="raft-journal")

    async def _write(self, flush: Flush) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.run_in_executor(self._writer, self._journal.write, flush)
                break
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    return self._fail(error)
                self._note_full("log", error)
                await asyncio.sleep(_DISK_FULL_RETRY_S)
        self._full.discard("log")
        self._journal.complete(flush)
        self._engine.guard.durable()
        self._ask_turn()
        return None

    def _note_full(self, what: str, error: Exception) -> None:
        if what not in self._full:
            log.error("no room for the %s: nothing is acknowledged here until there is some: %s", what, error)
        self._full.add(what)
        self._ask_turn()

    # --- identities ----------------------------------------------------------------------------------------------

    def _check_identities(self) -> None:
        """Vote only if that is safe; as leader, bind the names of the members to the data directories that came."""
        self._engine.elections.votes = self._roster.formed
        if self._roster.checks and self._engine.is_leader:
            bound = self._roster.bound(self._transport.connected)
            if bound != self._engine.configuration:
                with suppress(ValueError):  # not now: the next turn tries again
                    self._engine.change(bound)

    def _has_no_data(self) -> bool:
        return self._journal.last_index <= 1 and self._engine.term == 0 and self._mark.stage is None

    def _all_known(self) -> bool:
        """Nothing is proposed before the names of all voters are bound: an acknowledged write must never be counted by
        a member whose loss of memory nobody would notice."""
        return not self._roster.checks or all(m.uuid or not m.voter for m in self._engine.configuration.members)

    # --- the state machine's thread ------------------------------------------------------------------------------

    async def _keep_applying(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._apply_wanted.wait()
            self._apply_wanted.clear()
            try:
                while self.applied_index < self._engine.safe_index:
                    entries = self._next_entries()
                    try:
                        results = await loop.run_in_executor(self._apply_thread, self._applier.apply, entries)
                    except StorageFull as error:
                        self._note_full("state", error)
                        await asyncio.sleep(_DISK_FULL_RETRY_S)
                        continue
                    self._applied(entries[: len(results)], results)
                    await self._cut_log()
                    self._engine.disk.applying_since_s = None
            except Exception as error:
                return self._fail(error)

    async def _cut_log(self) -> None:
        """Cut the log's beginning once it is long, after the state that stands for it was made durable."""
        kept = self._sizes.segments_kept
        if self._journal.segment_count <= kept + max(1, kept // 2):
            return
        below = self.applied_index if self._held_index is None else min(self._held_index, self.applied_index)
        below = max(below, self._journal.first_index)
        if not self._journal.can_cut(keep_segments=kept, below=below):
            return  # the log is held for a member: making the state durable after each entry would gain nothing
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._apply_thread, self._applier.checkpoint)
        gone = self._journal.cut(keep_segments=kept, below=below)
        if gone:
            await loop.run_in_executor(self._writer, self._journal.unlink, gone)
            log.info("cut the log: it begins at index %d now", self._journal.first_index)

    def _next_entries(self) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        stop = min(self._engine.safe_index, self.applied_index + _APPLY_ENTRIES_MAX)
        for index in range(self.applied_index + 1, stop + 1):
            entries.append(decode_entry(self._journal, index))
            size += len(self._journal.py_entry(index)[0])
            if size > _APPLY_BYTES_MAX:
                break
        return entries

    def _applied(self, entries: Sequence[Entry], results: Sequence[Sequence[Any]]) -> None:
        self._full.discard("state")
        for entry, answers in zip(entries, results, strict=True):
            self.applied_index = entry.index
            self._proposals.applied(entry.index, entry.term, answers if entry.configuration is None else [None])
        while self._applied_waiters and self._applied_waiters[0][0] <= self.applied_index:
            waiter = heapq.heappop(self._applied_waiters)[2]
            if not waiter.done():
                waiter.set_result(None)
        self._ask_turn()
