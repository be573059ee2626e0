"""What must hold, and the one who looks: at the nodes after each of their steps, and at the clients' histories.

While the nodes run: Raft's invariants (``raftfs.testing.invariants``), and equal state hashes at equal indexes. At the
end: each write that was acknowledged was done once, one of unknown outcome at most once, one that was refused never;
what reads gave, stale ones too, is what was there at the revision that they named; and the whole history is
linearizable (``raftfs.testing.linearizability``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raftfs.consensus.guard import SafetyViolation
from raftfs.state import StateMachine
from raftfs.state.commands import Code, CommitFile, Envelope, Remove, Result, decode_envelope
from raftfs.testing.history import Operation
from raftfs.testing.invariants import Checker, Violation
from raftfs.testing.linearizability import check, revision_faults

if TYPE_CHECKING:
    from raftfs.testing.simulation.node import Node

_FULL_LOOK_EVERY = 64
_CALL_S_MAX = 3.0  # twice what a client gives a node
_DONE = (Code.OK, Code.CREATED, Code.REPLACED)


@dataclass
class Seen:
    """What a read showed: at ``revision``, ``path`` held ``value`` (None: nothing)."""

    path: str
    revision: int
    value: bytes | None
    who: str


@dataclass
class Written:
    """A write (``key``: its value) or a removal (its idempotency key): done "once", "never", or "perhaps"."""

    key: str
    times: str
    who: str


@dataclass
class Judge:
    """``fail`` is called with the first Violation."""

    fail: Callable[[BaseException], None]
    checker: Checker = field(default_factory=Checker)
    history: list[Operation] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    hashes: dict[int, bytes] = field(default_factory=dict)
    applications: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """a write's value, or a removal's idempotency key → indexes of the entries in which it was carried out"""
    timeline: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=lambda: defaultdict(list))
    _last: dict[str, tuple[int, bool, int, int]] = field(default_factory=dict)
    _looks: int = 0

    # --- while it runs -------------------------------------------------------------------------------------------

    def restarted(self, name: str, state: StateMachine) -> None:
        self._last.pop(name, None)
        self.checker.restarted(name, state.applied_index)

    def forget(self) -> None:
        """Another cluster begins in the place of one in which nothing was ever applied."""
        self.checker = Checker()
        self._last.clear()

    def node_failed(self, name: str, error: BaseException) -> None:
        """No node has a reason to give up: the simulation damages nothing that it may rely on."""
        if isinstance(error, Violation):
            self.fail(error)
        elif isinstance(error, SafetyViolation):
            self.fail(Violation("a node stops itself", f"{name}: {error}"))
        else:
            self.fail(Violation("a node goes on", f"{name}: {type(error).__name__}: {error}"))

    def look(self, node: Node) -> None:
        """After a step of a node."""
        engine, journal = node.consensus._engine, node.consensus._journal
        last = self._last.get(node.label)
        leads = engine.is_leader
        if last is not None and leads == last[1] and not node.changed():
            return
        now = engine.term, leads, journal.last_index, journal.last_term
        if now == last:
            return
        self._last[node.label] = now
        term, _, last_index, _ = now
        self._looks += 1
        first = journal.first_index
        if first > 1:
            first += 1  # where a log was begun anew after a snapshot, an empty entry stands for the last one in that
        began_to_lead = leads and (last is None or not last[1] or last[0] != term)
        if last is not None and not began_to_lead and self._looks % _FULL_LOOK_EVERY:
            # What was seen before stands if its last entry does: two equal last entries, two equal logs.
            known = min(last[2], last_index)
            if known >= first and (known < last[2] or journal.term(known) == last[3]):
                first = known
        log = [(index, journal.term(index), journal.data(index)) for index in range(first, last_index + 1)]
        try:
            self.checker.observe(node.label, term=term, leads=leads, log=log)
        except Violation as violation:
            self.fail(violation)

    def applied(
        self, node: Node, index: int, term: int, commands: Sequence[bytes], results: Sequence[Result], state_hash: bytes
    ) -> None:
        """A node applied an entry."""
        consensus = node.consensus
        try:
            self.checker.apply(
                node.label, node_term=consensus.term, index=index, term=term, data=consensus._journal.data(index)
            )
        except Violation as violation:
            self.fail(violation)
            return
        known = self.hashes.get(index)
        if known is None:
            self.hashes[index] = state_hash
            for command, result in zip(commands, results, strict=True):
                self._note(index, decode_envelope(command), result)
        elif known != state_hash:
            self.fail(Violation("equal states", f"{node.name} has another state at index {index} than others"))

    def _note(self, index: int, envelope: Envelope, result: Result) -> None:
        if result.replayed or result.code not in _DONE:
            return
        command = envelope.command
        if isinstance(command, CommitFile):
            self.applications[(command.data or b"").decode()].append(index)
            self.timeline[command.path].append((result.revision, command.data))
        elif isinstance(command, Remove):
            self.applications[envelope.key or ""].append(index)
            self.timeline[command.path].append((result.revision, None))

    def ended(self, name: str, oldest_call_s: float | None, now_s: float) -> None:
        """What a node was asked ends: applied, refused, or unknown at its deadline."""
        if oldest_call_s is not None and now_s - oldest_call_s > _CALL_S_MAX:
            raise Violation("every call ends", f"{name} has not answered for {now_s - oldest_call_s:.1f} s")

    # --- at the end ----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Raises Violation."""
        for write in self.written:
            times = len(self.applications.get(write.key, ()))
            if times > 1:
                raise Violation("exactly once", f"{write.who} was done {times} times")
            if write.times == "once" and times == 0:
                raise Violation("durability", f"{write.who} was acknowledged and is not there")
            if write.times == "never" and times:
                raise Violation("exactly once", f"{write.who} was done, and its client was told that it was not")
        for read in self.seen:
            changes = self.timeline[read.path]
            at = bisect_right(changes, read.revision, key=lambda change: change[0])
            value = changes[at - 1][1] if at else None
            if value != read.value:
                raise Violation(
                    "reads are of their revision",
                    f"{read.who}: {read.path} at revision {read.revision} gave {read.value!r}, not {value!r}",
                )
        for complaint in revision_faults(self.history):
            raise Violation("revisions follow real time", complaint)
        verdict = check(self.history)
        if verdict.violations:
            raise Violation("linearizability", str(verdict.violations[0]))
