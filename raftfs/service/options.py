"""What a caller may ask of a read or a write, and what it is told about a read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from raftfs.models import Consistency
from raftfs.state.commands import Result

Ack = Literal["quorum", "all"]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How current a read must be.

    ``linearizable``: at least as new as every write acknowledged before the call. ``bounded``: as this node has it, if
    it heard the leader at most ``max_staleness_s`` ago. ``stale``: as this node has it, whatever its age.
    ``revision`` reads the namespace as it was then. ``timeout_s`` bounds the wait for the barrier (None: the node's
    configured deadline).
    """

    consistency: Consistency = "linearizable"
    max_staleness_s: float = 10.0
    revision: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReadInfo:
    """What an answer shows: the namespace's ``revision``; ``stale`` if no barrier proved it current; then ``age_ms`` is
    the time since this node last heard the leader, None if it never did."""

    revision: int
    stale: bool
    age_ms: int | None


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a write is done.

    ``key``: idempotency key. ``timeout_s``: None for the node's configured deadline; it covers the whole of a small
    write and each step of a large upload. ``ack``: "all" wants bytes and log durable on every member. ``on_result`` is
    called with the raw result before a successful call returns: its ``revision`` and whether it was ``replayed``.
    """

    key: str | None = None
    timeout_s: float | None = None
    ack: Ack = "quorum"
    on_result: Callable[[Result], None] | None = None
