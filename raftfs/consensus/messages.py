"""What members say to each other about the log: msgspec structures, one encoding, nothing else is understood.

Field names follow the Raft paper (figure 2). ``seq`` counts the appends that a process sends to one peer; a reset
that answers an older one than the last reset is stale. Entries carry their term; their index follows from ``prev``.

Fields that come later stand at the end, with a default: older code skips them. A message that older code does not know
raises ``raftfs.versions.PROTOCOL_VERSION``, and is sent only to members whose greeting says that they speak it.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

COUNT_MAX: Final = 2**62
"""No term, index or number comes near it. What does is refused before one more than it is too large for the disk."""

Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]


class ProtocolViolation(Exception):
    """A peer sent what no correct member sends; its connection is closed and nothing of it is used."""


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    term: Count


class WireEntry(msgspec.Struct, frozen=True, array_like=True):
    term: Count
    data: bytes


class Append(_Message, frozen=True):
    """AppendEntries. Index of the first entry is ``prev_index + 1``."""

    seq: Count
    prev_index: Count
    prev_term: Count
    commit_index: Count
    entries: list[WireEntry]


class Behind(_Message, frozen=True):
    """The leader's log begins at ``first_index``, and the follower's does not reach it: only a snapshot helps."""

    first_index: Count


class AppendAck(_Message, frozen=True):
    """``match_index``: the log is durable here and verified against the leader of ``term`` up to it. With ``reset``
    the append did not fit, and the leader should go on from ``match_index + 1`` (a hint, nothing is verified). Without
    ``counts`` it only moves the flow on: it comes from a member that rejoins, and is part of no majority."""

    seq: Count
    match_index: Count
    reset: bool
    counts: bool = True


class VoteRequest(_Message, frozen=True):
    """``transfer``: the leader itself asked for this election, so that loyalty to it is no reason to refuse."""

    last_log_index: Count
    last_log_term: Count
    transfer: bool = False


class PreVote(_Message, frozen=True):
    """Would you vote for this log in ``term`` (one above the asker's)? Changes nothing at either side."""

    last_log_index: Count
    last_log_term: Count


class PreVoteGrant(_Message, frozen=True):
    """Yes; ``term`` is the one that was asked for."""


class TimeoutNow(_Message, frozen=True):
    """The leader of ``term`` hands its leadership over: begin an election at once (Raft dissertation, section 3.10)."""


class VoteGrant(_Message, frozen=True):
    pass


class StaleTerm(_Message, frozen=True):
    """Answer to a message of an older term: ``term`` is the current one."""


class Probe(_Message, frozen=True):
    """ReadIndex: the leader of ``term`` asks who still follows (or could follow) it."""

    number: Count


class ProbeAck(_Message, frozen=True):
    number: Count


class ReadIndexRequest(_Message, frozen=True):
    """A follower asks the leader for a read index; ``number`` comes back in the answer."""

    number: Count


class ReadIndexAnswer(_Message, frozen=True):
    """``index`` is None if the asked node is not (or no longer) the leader."""

    number: Count
    index: Count | None


class RejoinQuestion(_Message, frozen=True):
    """A member that lost a part of its data asks for the other's term and, if it leads, for the end of its log."""

    number: Count


class RejoinAnswer(_Message, frozen=True):
    """``term`` is the current one, and ``sure`` says that it is at least that of every vote that this member gave.
    ``last_index``: of the log, None if the asked member does not lead. ``commit_index``: None, too, as long as the
    leader cannot know that it is current."""

    number: Count
    sure: bool
    last_index: Count | None
    commit_index: Count | None


Message = (
    Append | Behind | AppendAck | VoteRequest | VoteGrant | PreVote | PreVoteGrant | TimeoutNow | StaleTerm
    | Probe | ProbeAck | ReadIndexRequest | ReadIndexAnswer | RejoinQuestion | RejoinAnswer
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(raw: bytes | memoryview) -> Message:
    """Raises msgspec.MsgspecError (wrong shape or types) for anything that is not a message."""
    return _decoder.decode(raw)
