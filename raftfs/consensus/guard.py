"""The guard: between PySyncObj and the network, every Raft rule that PySyncObj breaks is restored here.

Sans-IO. PySyncObj takes the guard for its transport: what it wants to send comes into ``send`` and leaves, corrected,
through ``emit``; what peers sent comes into ``receive`` and reaches PySyncObj corrected. The journal says what is
durable; ``durable()`` is called when that changed. Rules (numbers of docs/design/consensus.md):

1. nothing is acknowledged or counted before it is durable here: ``_acknowledge``, ``_hold_ack``, ``durable``
2. entries are removed only where they conflict, never at or below the commit index: ``_trim``
3. acknowledgements carry term, sequence and the verified index: ``_acknowledge``, ``_receive_ack``
4. the commit index moves only over entries verified against this leader: ``_receive_append``
5. a node that is behind in terms is told so at once: ``_is_stale``, ``_receive_stale_term``
8. bytes in flight are bounded and nothing is sent twice on one connection: ``_send_append``, ``flow.Flow``
9. only what fits is let in: ``_check_entries``
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raftfs.consensus import messages as m
from raftfs.consensus.flow import Flow
from raftfs.consensus.journal import Journal
from raftfs.consensus.membership import decode_configuration
from raftfs.consensus.segments import DATA_BYTES_MAX
from raftfs.limits import APPEND_MESSAGE_BYTES_MAX, PEER_BYTES_IN_FLIGHT_MAX

log = logging.getLogger(__name__)

NO_OP: Final = b"\x01"  # what PySyncObj appends at the start of a term
_BEHIND_TOLD_S: Final = 1.0
COMMANDS: Final = 0x10  # first byte of our entries; a type that PySyncObj does not know and leaves alone


class SafetyViolation(Exception):
    """A state that Raft rules out: going on could lose acknowledged writes, so the node stops."""


class Core(Protocol):
    """What the guard asks PySyncObj."""

    @property
    def term(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def takes_part(self) -> bool:
        """Whether this member is part of majorities: see rejoin.py."""


class _Answering:
    """The append that PySyncObj is looking at: its answer comes back synchronously through ``send``."""

    __slots__ = ("empty", "hint", "peer", "seq", "verified")

    def __init__(self, peer: str, seq: int, *, verified: int, hint: int, empty: bool) -> None:
        self.peer = peer
        self.seq = seq
        self.verified = verified
        self.hint = hint
        self.empty = empty


class Guard(Transport):  # type: ignore[misc]  # PySyncObj has no types
    """``peers`` are the other voting members' ids. ``emit`` sends a message to a peer and may drop it, never block."""

    def __init__(
        self,
        *,
        peers: frozenset[str],
        journal: Journal,
        emit: Callable[[str, m.Message], None],
        clock: Callable[[], float],
        heartbeat_s: float,
    ) -> None:
        super().__init__(None, None, [])
        self._voters, self._learners = peers, frozenset[str]()
        self._linked: set[str] = set()  # who can be sent to, members or not
        self._nodes: dict[str, Any] = {}
        self._journal = journal
        self._emit = emit
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._flows: dict[str, Flow] = {}
        self._seq = 0
        self._answering: _Answering | None = None
        self._held_own: dict[str, tuple[int, int, int]] = {}  # peer → (term, seq, verified): waits for our disk
        self._held_theirs: dict[str, tuple[int, int]] = {}  # peer → (term, match): waits for our disk
        self._votes: tuple[int, set[str]] = (0, set())
        self.core: Core
        self.append_bytes_max, self.in_flight_bytes_max = APPEND_MESSAGE_BYTES_MAX, PEER_BYTES_IN_FLIGHT_MAX
        self.leader_heard_s = float("-inf")
        self.verified: tuple[int, int] = (0, 0)  # (term, index): our log equals that leader's up to there
        self._adopting = False
        self.transferring = False  # the next election is the old leader's wish
        self.on_vote: Callable[[], None] = lambda: None
        self.on_behind: Callable[[str], None] = lambda _leader: None

    # --- what PySyncObj asks of a transport ----------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return True

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        kind, peer = message["type"], node.id
        if kind == "append_entries":
            self._send_append(peer, message)
        elif kind == "next_node_idx":
            self._acknowledge(message)
        elif kind == "request_vote":
            self._votes = (message["term"], set())
            last = message["last_log_index"], message["last_log_term"]
            self._emit(peer, m.VoteRequest(message["term"], *last, self.transferring))
        elif kind == "response_vote" and not self._adopting:
            # PySyncObj wrote term and vote through the journal, which fsyncs them, before it came here.
            self._emit(peer, m.VoteGrant(message["term"]))
            self.on_vote()
        elif kind == "timeout_now":
            self._emit(peer, m.TimeoutNow(message["term"]))
        # Its forwarding of commands (and anything else) is not used: proposals have their own way to the leader.
        return True

    def destroy(self) -> None:
        self._flows.clear()

    # --- connections ---------------------------------------------------------------------------------------------

    def connected(self, peer: str) -> None:
        """Messages can be sent to ``peer`` from now on."""
        self._linked.add(peer)
        self._open(peer)

    def disconnected(self, peer: str) -> None:
        self._linked.discard(peer)
        self._shut(peer)

    def members(self, voters: frozenset[str], learners: frozenset[str], change: Callable[[], None]) -> None:
        """The other members from now on. ``change`` tells PySyncObj, between the end of what was open to members
        whose part changes, and its beginning anew: nothing that was acknowledged in the old part counts in the new."""
        moved = (voters ^ self._voters) | (learners ^ self._learners)
        for peer in moved:
            self._shut(peer)
            self._held_theirs.pop(peer, None)
        self._voters, self._learners = voters, learners
        change()
        for peer in moved & self._linked:
            self._open(peer)

    def dismiss(self, peers: frozenset[str]) -> None:
        """Send nothing to these any more, until ``reopen``."""
        for peer in peers:
            self._shut(peer)

    def reopen(self) -> None:
        """Send again to all that are members still."""
        for peer in (self._voters | self._learners) & self._linked - self._flows.keys():
            self._open(peer)

    def _open(self, peer: str) -> None:
        if peer in self._voters:
            self._flows[peer] = Flow(self.in_flight_bytes_max)
            self._onNodeConnected(self._node(peer))
        elif peer in self._learners:
            # PySyncObj sends entries to what it calls a read-only node, and counts it for nothing.
            self._flows[peer] = Flow(self.in_flight_bytes_max)
            self._onReadonlyNodeConnected(self._node(peer))

    def _shut(self, peer: str) -> None:
        self._held_own.pop(peer, None)
        if self._flows.pop(peer, None) is not None:
            shut = self._onReadonlyNodeDisconnected if peer in self._learners else self._onNodeDisconnected
            shut(self._node(peer))

    def _node(self, peer: str) -> Any:
        return self._nodes.setdefault(peer, Node(peer))

    def resume(self) -> None:
        """Before each tick: let PySyncObj send again to peers that were paused to end its sending loop."""
        for peer, flow in self._flows.items():
            if flow.paused:
                flow.paused = False
                self._onNodeConnected(self._node(peer))

    @property
    def reaches_anyone(self) -> bool:
        """Whether messages can be sent to a peer, or there is none."""
        return bool(self._flows) or not self._voters

    def deliver_timeout_now(self, leader: Any, term: int) -> None:
        """Let PySyncObj begin an election at its next tick. It listens only to what it takes for the leader."""
        self._onMessageReceived(leader, {"type": "timeout_now", "term": term})

    def match_index(self, peer: str) -> int | None:
        """On the leader: up to where ``peer``'s durable log is known to equal ours; None if not connected."""
        flow = self._flows.get(peer)
        return None if flow is None or flow.term != self.core.term else flow.match_index

    # --- the leader's side: sending ------------------------------------------------------------------------------

    def _send_append(self, peer: str, message: dict[str, Any]) -> None:
        flow = self._flows.get(peer)
        if flow is None:
            return
        flow.enter_term(message["term"])
        # A voter that is alone commits without asking anybody, also what is not durable here: rule 1 for its learners.
        commit = self._durable(message["commit_index"])
        if "prevLogIdx" not in message or 0 < flow.sent_index < self._journal.first_index:
            # The peer needs what is cut off, or was silent while it was cut: is our first entry there?
            self._ask_for_first(peer, flow, commit)
            return self._pause(peer, flow)
        prev, entries = message["prevLogIdx"], message["entries"]
        last = prev + len(entries)
        if flow.sent_index:
            prev = flow.sent_index
        taken = self._take(flow, prev, last)
        if not taken and not self._heartbeat_due(flow, commit):
            if last > prev:
                self._pause(peer, flow)
            return
        self._emit_append(peer, flow, prev, commit, taken)
        if prev + len(taken) < last:
            self._pause(peer, flow)

    def _emit_append(self, peer: str, flow: Flow, prev: int, commit: int, taken: list[m.WireEntry]) -> None:
        self._seq += 1
        flow.sent_at_s, flow.commit_sent = self._clock(), commit
        if prev == self._journal.first_index:
            flow.first_seq = self._seq
        if not flow.sent_index:
            flow.sent_index = prev
        self._emit(peer, m.Append(flow.term, self._seq, prev, self._journal.term(prev), commit, taken))

    def _ask_for_first(self, peer: str, flow: Flow, commit: int) -> None:
        if self._heartbeat_due(flow, flow.commit_sent):
            flow.ask()
            self._emit_append(peer, flow, self._journal.first_index, commit, [])

    def _take(self, flow: Flow, prev: int, last: int) -> list[m.WireEntry]:
        """Entries after ``prev`` up to ``last``, as many as the flow has room for."""
        taken: list[m.WireEntry] = []
        size = 0
        for index in range(prev + 1, last + 1):
            if not flow.has_room or size >= self.append_bytes_max:
                break
            data = self._journal.data(index)
            taken.append(m.WireEntry(self._journal.term(index), data))
            size += len(data)
            flow.sent(index, len(data))
        return taken

    def _heartbeat_due(self, flow: Flow, commit: int) -> bool:
        return commit > flow.commit_sent or self._clock() - flow.sent_at_s >= 0.9 * self._heartbeat_s

    def _pause(self, peer: str, flow: Flow) -> None:
        """PySyncObj goes on sending to a connected node until its log is at its end; so for now it is not."""
        flow.paused = True
        self._onNodeDisconnected(self._node(peer))

    # --- receiving -----------------------------------------------------------------------------------------------

    def receive(self, peer: str, message: m.Message) -> None:
        """A message from a member. Raises ProtocolViolation (close the connection) or SafetyViolation (stop)."""
        if self._is_stale(peer, message):
            return
        if isinstance(message, m.Append):
            self._receive_append(peer, message)
        elif isinstance(message, m.AppendAck):
            self._receive_ack(peer, message)
        elif isinstance(message, m.VoteRequest):
            self._deliver(
                peer,
                type="request_vote",
                term=message.term,
                last_log_index=message.last_log_index,
                last_log_term=message.last_log_term,
            )
        elif isinstance(message, m.VoteGrant):
            self._receive_vote(peer, message)
        elif isinstance(message, m.StaleTerm):
            self.step_down(peer, message.term)
        elif isinstance(message, m.Behind) and message.term == self.core.term and not self.core.is_leader:
            self.leader_heard_s = self._clock()
            self.on_behind(peer)

    def _is_stale(self, peer: str, message: m.Message) -> bool:
        """Whether a message is of an older term; a leader or candidate of that term is told the current one."""
        if message.term >= self.core.term:
            return False
        if isinstance(message, m.Append | m.VoteRequest):
            self._emit(peer, m.StaleTerm(self.core.term))
        return True

    def step_down(self, peer: str, term: int) -> None:
        """Adopt a newer term. A vote request that nobody can grant is the one message that does only that."""
        if term > self.core.term:
            self._deliver(peer, type="request_vote", term=term, last_log_index=-1, last_log_term=-1)

    def adopt(self, me: str, term: int) -> None:
        """Make ``term`` the current one, with the vote in it given to this node itself: PySyncObj grants a request of
        whoever has the longest log. If a vote was given in it already, that one stands."""
        self._adopting = True
        self._deliver(me, type="request_vote", term=term, last_log_index=2**63, last_log_term=2**63)
        self._adopting = False

    def _receive_vote(self, peer: str, message: m.VoteGrant) -> None:
        """PySyncObj counts every grant; a member has one vote a term."""
        term, voters = self._votes
        if message.term == term and peer in self._voters and peer not in voters:
            voters.add(peer)
            self._deliver(peer, type="response_vote", term=term)

    # --- the follower's side: entries ----------------------------------------------------------------------------

    def _receive_append(self, peer: str, message: m.Append) -> None:
        if message.term == self.core.term and self.core.is_leader:
            raise SafetyViolation(f"{peer} leads term {message.term}, and so does this node")
        self._check_entries(message)
        self.leader_heard_s = self._clock()
        prev, entries = message.prev_index, message.entries
        if prev < (first := self._journal.first_index):
            # What lies before our first entry is applied, and so is that entry: they equal every leader's.
            prev, entries = first, entries[first - prev :]
        elif not self._matches(prev, message.prev_term):
            self._refuse_append(peer, message)
            return
        prev, entries = self._trim(prev, entries)
        verified = prev + len(entries)
        if not entries and self._journal.last_index > prev:
            # All of it is here already, and more. PySyncObj would cut the rest; shown our own end, it cuts nothing.
            prev = self._journal.last_index
        answering = _Answering(peer, message.seq, verified=verified, hint=0, empty=not message.entries)
        self._hand_over(message, prev, self._journal.term(prev), entries, answering)

    def _check_entries(self, message: m.Append) -> None:
        """Rule 9: terms in order, none from the future, and only entry types that raftfs itself writes."""
        if message.prev_index < 1 or message.commit_index < 0:
            raise m.ProtocolViolation(f"append with prev index {message.prev_index}, commit {message.commit_index}")
        term = message.prev_term
        for entry in message.entries:
            if not term <= entry.term <= message.term:
                raise m.ProtocolViolation(f"entry of term {entry.term} after {term} from a leader of {message.term}")
            term = entry.term
            _check_data(entry.data)

    def _matches(self, index: int, term: int) -> bool:
        """Whether our log has that entry. What is committed equals every leader's log (leader completeness)."""
        if index > self._journal.last_index:
            return False
        if self._journal.term(index) == term:
            return True
        if index <= self.core.commit_index:
            raise SafetyViolation(
                f"the leader's entry {index} is of term {term}, ours of {self._journal.term(index)} is committed"
            )
        return False

    def _refuse_append(self, peer: str, message: m.Append) -> None:
        last = self._journal.last_index
        if message.prev_index > last:
            hint = last
        else:
            # The whole run of that term may differ: go back over it at once instead of by one entry a round trip.
            hint = max(self._journal.first_index_of_term(message.prev_index) - 1, self.core.commit_index)
        answering = _Answering(peer, message.seq, verified=0, hint=max(1, hint), empty=True)
        self._hand_over(message, message.prev_index, message.prev_term, [], answering)

    def _trim(self, prev: int, entries: list[m.WireEntry]) -> tuple[int, list[m.WireEntry]]:
        """Rule 2: leave out what is here already; what remains begins at a true conflict or after our end."""
        kept = 0
        for entry in entries:
            if not self._matches(prev + kept + 1, entry.term):
                break
            kept += 1
        return prev + kept, entries[kept:]

    def _hand_over(
        self, message: m.Append, prev: int, prev_term: int, entries: list[m.WireEntry], answering: _Answering
    ) -> None:
        """Rule 4: PySyncObj sees the leader's commit index only as far as it is verified."""
        self._answering = answering
        try:
            self._deliver(
                answering.peer,
                type="append_entries",
                term=message.term,
                commit_index=min(message.commit_index, answering.verified),
                prevLogIdx=prev,
                prevLogTerm=prev_term,
                entries=[(entry.data, prev + 1 + at, entry.term) for at, entry in enumerate(entries)],
            )
        finally:
            self._answering = None

    def _acknowledge(self, message: dict[str, Any]) -> None:
        """Rules 1 and 3: PySyncObj's answer becomes one that says what is verified, and waits for the disk."""
        answering, term = self._answering, self.core.term
        if answering is None:
            raise SafetyViolation("PySyncObj acknowledged entries out of turn")
        if not message["success"]:
            self._emit_ack(answering.peer, term, answering.seq, answering.hint, reset=True)
            return
        known_in, known = self.verified
        self.verified = (term, max(known, answering.verified) if known_in == term else answering.verified)
        durable = self._durable(answering.verified)
        if durable < answering.verified:
            self._held_own[answering.peer] = (term, answering.seq, answering.verified)
            if not answering.empty:
                return  # the disk is asked already; its answer makes a better acknowledgement
        self._emit_ack(answering.peer, term, answering.seq, durable)

    def _emit_ack(self, peer: str, term: int, seq: int, index: int, *, reset: bool = False) -> None:
        self._emit(peer, m.AppendAck(term, seq, index, reset, self.core.takes_part))

    def _durable(self, index: int) -> int:
        return min(index, self._journal.durable_index)

    # --- the leader's side: acknowledgements ---------------------------------------------------------------------

    def _receive_ack(self, peer: str, message: m.AppendAck) -> None:
        """Rule 3: only of this term (an older one was dropped before), and never beyond what this leader has."""
        if message.term > self.core.term:
            return self.step_down(peer, message.term)
        flow = self._flows.get(peer)
        if flow is None or not self.core.is_leader or flow.term != message.term:
            return None
        if message.match_index > self._journal.last_index or message.seq > self._seq:
            raise m.ProtocolViolation(f"{peer} acknowledged index {message.match_index}, which was never sent")
        if message.reset:
            return self._receive_reset(peer, flow, message)
        flow.acknowledged(message.match_index)
        # PySyncObj hears nothing of one that rejoins: it is counted neither for commitment nor for a leader's quorum.
        return self._hold_ack(peer, flow) if message.counts else None

    def _receive_reset(self, peer: str, flow: Flow, message: m.AppendAck) -> None:
        if message.seq < flow.reset_floor:
            return
        # A hint goes back over a whole run of entries of one term, perhaps behind what is verified already.
        hint = max(message.match_index, flow.match_index)
        if hint < self._journal.first_index:
            if message.seq == flow.first_seq:
                return self._tell_behind(peer, flow, counts=message.counts)
            hint = self._journal.first_index
        flow.reset_floor = self._seq + 1
        flow.forget()
        self._deliver(peer, type="next_node_idx", next_node_idx=hint + 1, reset=True, success=False)

    def _tell_behind(self, peer: str, flow: Flow, *, counts: bool) -> None:
        """The peer lacks our first entry, which is committed: nothing that it has from there on can be."""
        flow.forget()
        if self._clock() - flow.behind_told_s >= _BEHIND_TOLD_S:
            flow.behind_told_s = self._clock()
            self._emit(peer, m.Behind(flow.term, self._journal.first_index))
        if counts:  # it is alive, and that counts for the leader's quorum
            self._deliver(peer, type="next_node_idx", next_node_idx=1, reset=False, success=False)

    def _hold_ack(self, peer: str, flow: Flow) -> None:
        """Rule 1: PySyncObj counts its own copy at once, so a follower's counts only up to what is durable here."""
        durable = self._durable(flow.match_index)
        if durable < flow.match_index:
            self._held_theirs[peer] = (flow.term, flow.match_index)
        self._deliver(peer, type="next_node_idx", next_node_idx=durable + 1, reset=False, success=True)

    def durable(self) -> None:
        """The journal's ``durable_index`` has risen: let go what waited for it."""
        for peer, (term, seq, verified) in list(self._held_own.items()):
            index = self._durable(verified)
            if index == verified or term != self.core.term:
                del self._held_own[peer]
            if term == self.core.term:
                self._emit_ack(peer, term, seq, index)
        for peer, (term, match) in list(self._held_theirs.items()):
            if self._durable(match) == match or term != self.core.term:
                del self._held_theirs[peer]
            flow = self._flows.get(peer)
            if term == self.core.term and self.core.is_leader and flow is not None and flow.term == term:
                self._hold_ack(peer, flow)

    def _deliver(self, peer: str, **message: Any) -> None:
        self._onMessageReceived(self._node(peer), message)


def _check_data(data: bytes) -> None:
    if len(data) > DATA_BYTES_MAX:
        raise m.ProtocolViolation(f"entry of {len(data)} bytes: it could not be read back")
    if data != NO_OP and data[:1] != bytes([COMMANDS]):
        _check_configuration(data)


def _check_configuration(data: bytes) -> None:
    try:
        decode_configuration(data)
    except ValueError as error:
        raise m.ProtocolViolation(str(error)) from None
