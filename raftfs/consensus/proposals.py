"""Commands on their way into the log: batched into entries, and each answered exactly once.

While entries are in flight, what arrives waits and goes into the next entry together (group commit). An entry is known
by its index and term: when that index is applied with that term, its commands' results are the answers; when it is
applied with another term, the entry lost and its commands were certainly not applied. What is still open at its
deadline has an unknown outcome, and says so.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from raftfs.consensus.guard import COMMANDS
from raftfs.consensus.messages import Append, ProtocolViolation
from raftfs.errors import NotLeader, Outcome, Overloaded, RaftfsError, Unavailable, UnknownOutcome
from raftfs.limits import (
    BATCH_COMMANDS_MAX,
    ENTRIES_IN_FLIGHT_MAX,
    ENTRY_BYTES_MAX,
    PROPOSALS_WAITING_BYTES_MAX,
    PROPOSALS_WAITING_MAX,
)

_batch_decoder = msgspec.msgpack.Decoder(list[bytes])


def encode_batch(commands: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode(list(commands))


def decode_batch(data: bytes) -> list[bytes]:
    """Raises msgspec.MsgspecError if it is not a batch."""
    return _batch_decoder.decode(data)


def check_batches(message: Append) -> None:
    """Raises ProtocolViolation if entries could not be taken apart again: every member would stop at them."""
    for entry in message.entries:
        if entry.data[:1] == bytes([COMMANDS]):
            try:
                decode_batch(entry.data[1:])
            except msgspec.MsgspecError as error:
                raise ProtocolViolation(f"entry that is no batch of commands: {error}") from None


class _Proposal:
    __slots__ = ("command", "future", "proposed")

    def __init__(self, command: bytes, future: asyncio.Future[Any]) -> None:
        self.command = command
        self.future = future
        self.proposed = False


class Proposals:
    """``append(data)`` puts an entry into the log and gives its (index, term), or None if this node does not lead."""

    def __init__(self, append: Callable[[bytes], tuple[int, int] | None]) -> None:
        self._append = append
        self._waiting: deque[_Proposal] = deque()
        self._waiting_bytes = 0
        # index → (term, proposals of that entry). More than one if this node led, lost and led again: which of them
        # takes the index is open until it is applied.
        self._open: dict[int, list[tuple[int, list[_Proposal]]]] = {}
        self._open_count = 0

    async def submit(self, command: bytes, pump: Callable[[], None], *, timeout_s: float) -> Any:
        """The command's result. ``pump`` is called when there is something to pump.

        Raises Overloaded, NotLeader or Unavailable (not applied) or UnknownOutcome.
        """
        if (
            len(self._waiting) + self._open_count >= PROPOSALS_WAITING_MAX
            or self._waiting_bytes + len(command) > PROPOSALS_WAITING_BYTES_MAX
        ):
            raise Overloaded("too many writes are waiting; try again later", outcome="not_applied", retry_after_s=1.0)
        proposal = _Proposal(command, asyncio.get_running_loop().create_future())
        self._waiting.append(proposal)
        self._waiting_bytes += len(command)
        pump()
        try:
            async with asyncio.timeout(timeout_s):
                return await proposal.future
        except TimeoutError:
            raise _past_deadline(proposal, timeout_s) from None

    async def submit_alone(
        self, place: Callable[[], tuple[int, int] | None], pump: Callable[[], None], *, timeout_s: float
    ) -> None:
        """Wait for the fate of an entry that ``place`` puts into the log by itself.

        Raises what ``place`` does, NotLeader, Unavailable (another entry took its place) or UnknownOutcome.
        """
        placed = place()
        if placed is None:
            raise NotLeader("this node is not the leader", outcome="not_applied")
        proposal = _Proposal(b"", asyncio.get_running_loop().create_future())
        proposal.proposed = True
        index, term = placed
        self._open.setdefault(index, []).append((term, [proposal]))
        self._open_count += 1
        pump()
        try:
            async with asyncio.timeout(timeout_s):
                await proposal.future
        except TimeoutError:
            raise _past_deadline(proposal, timeout_s) from None

    def pump(self, in_flight: int) -> None:
        """Make entries of what waits while fewer than ENTRIES_IN_FLIGHT_MAX are in flight."""
        while self._waiting and in_flight < ENTRIES_IN_FLIGHT_MAX:
            batch = self._next_batch()
            if not batch:
                continue
            place = self._append(encode_batch([proposal.command for proposal in batch]))
            if place is None:
                _fail(batch, NotLeader, "this node stopped leading before the write was proposed", "not_applied")
                self.refuse_waiting()
                return
            index, term = place
            for proposal in batch:
                proposal.proposed = True
            self._open.setdefault(index, []).append((term, batch))
            self._open_count += len(batch)
            in_flight += 1

    def _next_batch(self) -> list[_Proposal]:
        batch: list[_Proposal] = []
        size = 0
        while self._waiting and len(batch) < BATCH_COMMANDS_MAX and size < ENTRY_BYTES_MAX:
            proposal = self._waiting.popleft()
            self._waiting_bytes -= len(proposal.command)
            if not proposal.future.done():  # it may have been given up
                batch.append(proposal)
                size += len(proposal.command)
        return batch

    def applied(self, index: int, term: int, results: Sequence[Any]) -> None:
        """Entry ``index`` was applied with ``term``: answer whoever proposed it."""
        for proposed_term, batch in self._open.pop(index, ()):
            self._open_count -= len(batch)
            if proposed_term != term:
                _fail(batch, Unavailable, "another leader's entry took the place of this write", "not_applied")
                continue
            for proposal, result in zip(batch, results, strict=True):
                if not proposal.future.done():
                    proposal.future.set_result(result)

    def refuse_waiting(self) -> None:
        """This node does not lead: what is not in the log goes back to be sent to the leader."""
        batch = list(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        _fail(batch, NotLeader, "this node is not the leader", "not_applied")

    def close(self) -> None:
        """The node ends."""
        self.refuse_waiting()
        for entries in self._open.values():
            for _, batch in entries:
                _fail(batch, UnknownOutcome, "the node stopped before the write was decided", "unknown")
        self._open.clear()
        self._open_count = 0


def _past_deadline(proposal: _Proposal, timeout_s: float) -> RaftfsError:
    if proposal.proposed:
        return UnknownOutcome(f"the write was proposed but not decided within {timeout_s:g} s")
    return Unavailable(f"the write could not be proposed within {timeout_s:g} s", outcome="not_applied")


def _fail(batch: Sequence[_Proposal], error: type[RaftfsError], detail: str, outcome: Outcome) -> None:
    for proposal in batch:
        if not proposal.future.done():
            proposal.future.set_exception(error(detail, outcome=outcome))
