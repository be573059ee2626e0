"""What goes in and out of a member: its entries, the state machine it drives, what it tells of itself, its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raftfs.consensus.barriers import Barriers
from raftfs.consensus.engine import Engine
from raftfs.consensus.guard import NO_OP
from raftfs.consensus.journal import Journal
from raftfs.consensus.membership import CONFIGURATION
from raftfs.consensus.proposals import Proposals, decode_batch
from raftfs.limits import JOURNAL_SEGMENT_BYTES, JOURNAL_SEGMENTS_KEPT


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed entry: its commands in order (none for the no-op at the start of a term), or a configuration (as
    ``membership.decode_configuration`` takes it)."""

    index: int
    term: int
    commands: list[bytes]
    configuration: bytes | None = None


def decode_entry(journal: Journal, index: int) -> Entry:
    """What the entry at ``index`` of a log says. Raises CorruptData if it is damaged on disk."""
    data = journal.data(index)
    if data[0] == CONFIGURATION:
        return Entry(index, journal.term(index), [], data)
    return Entry(index, journal.term(index), [] if data == NO_OP else decode_batch(data[1:]))


class Applier(Protocol):
    """The state machine, called in a thread of its own with entries in index order, each once."""

    def apply(self, entries: Sequence[Entry]) -> list[list[Any]]:
        """One result for each command, for the entries that were applied: all, or the first of them. StorageFull if
        none could be for want of space; it is called again. Any other exception stops the node: it must not diverge."""

    def checkpoint(self) -> None:
        """Make all that was applied durable: the log before it may be cut. Called in the same thread."""


@dataclass(frozen=True, slots=True)
class LogSizes:
    """How long the log gets: it is cut to ``segments_kept`` segments when it has half as many again."""

    segment_bytes: int = JOURNAL_SEGMENT_BYTES
    segments_kept: int = JOURNAL_SEGMENTS_KEPT


@dataclass(frozen=True)
class Parts:
    """What a member is made of. The simulator puts a part in here that lacks a rule, to see that the rule is missed."""

    journal: Callable[..., Journal] = Journal
    engine: Callable[..., Engine] = Engine
    barriers: Callable[..., Barriers] = Barriers
    proposals: Callable[..., Proposals] = Proposals


@dataclass(frozen=True, slots=True)
class PeerStatus:
    connected: bool
    match_index: int | None
    """known on the leader alone"""
    refused: str | None
    """why this member refuses our connection"""


@dataclass(frozen=True, slots=True)
class ConsensusStatus:
    term: int
    leader_id: str | None
    is_leader: bool
    commit_index: int
    applied_index: int
    quorum: bool
    peers: dict[str, PeerStatus]
