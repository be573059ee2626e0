"""From a command to its result: sealed with the leader's clock, proposed, and a refusal raised as its error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from raftfs import errors, limits
from raftfs.chunks import hash_chunk
from raftfs.service.ports import Clock, ConsensusPort
from raftfs.state import required_version
from raftfs.state.commands import Code, Command, CommitFile, Envelope, Result, encode
from raftfs.versions import UNDECIDED

REFUSALS: Final[dict[Code, type[errors.RaftfsError]]] = {
    Code.NOT_FOUND: errors.NotFound,
    Code.ALREADY_EXISTS: errors.AlreadyExists,
    Code.NOT_A_DIRECTORY: errors.NotADirectory,
    Code.IS_A_DIRECTORY: errors.IsADirectory,
    Code.NOT_EMPTY: errors.DirectoryNotEmpty,
    Code.PRECONDITION_FAILED: errors.PreconditionFailed,
    Code.INVALID: errors.InvalidRequest,
    Code.UPLOAD_NOT_FOUND: errors.UploadNotFound,
    Code.OFFSET_MISMATCH: errors.Conflict,
    Code.KEY_REUSED: errors.KeyReused,
    Code.INTO_ITSELF: errors.InvalidRequest,
}
"""Every result code that says no, and the error that it becomes."""


def fingerprint(command: Command, sha256: bytes | None = None) -> bytes:
    """BLAKE3 of what was asked: operation, paths, options and size, but not how the bytes travel (inline, or which
    upload), so that a retry has the same one. ``sha256`` is the digest that the client announced."""
    if isinstance(command, CommitFile):
        command = msgspec.structs.replace(command, data=None, upload=None)
    return hash_chunk(msgspec.msgpack.encode((command, sha256), order="deterministic"))


def check(result: Result) -> Result:
    """The result if it says done; otherwise raises its error with outcome "not_applied"."""
    refusal = REFUSALS.get(result.code)
    if refusal is not None:
        raise refusal(result.detail, outcome="not_applied")
    return result


class Proposer:
    """Puts commands into the replicated log and waits for what they did."""

    def __init__(
        self, consensus: ConsensusPort, clock: Clock, timeout_s: float, *, active_version: Callable[[], int]
    ) -> None:
        self._consensus, self._clock, self._timeout_s = consensus, clock, timeout_s
        self._active_version, self._version = active_version, UNDECIDED

    def timeout_s(self, asked: float | None) -> float:
        """The caller's timeout or the node's."""
        return self._timeout_s if asked is None else asked

    def require_leader(self) -> None:
        """Raises NotLeader (not applied) on any other node."""
        if not self._consensus.is_leader:
            leader = self._consensus.leader_id
            detail = f"this node is not the leader; {leader} is" if leader else "no leader is known at the moment"
            raise errors.NotLeader(detail, outcome="not_applied", retry_after_s=limits.FAILOVER_S)

    async def propose(
        self, command: Command, *, timeout_s: float | None = None, key: str | None = None, mark: bytes = b""
    ) -> Result:
        """The result of a command that was done; one that was refused raises its error.

        ``key`` is the idempotency key and ``mark`` the fingerprint that goes with it. Raises also what consensus
        raises: NotLeader, Unavailable, Overloaded, UnknownOutcome; and UpgradeUnfinished if the cluster's format is too
        old for the command.
        """
        self.require_leader()
        needed = required_version(command)
        self.require_version(needed)
        envelope = Envelope(command, self._clock.wall_ms(), key=key, fingerprint=mark, format=needed)
        data = encode(envelope)
        if len(data) > limits.COMMAND_BYTES_MAX:
            raise errors.TooLarge(
                f"the command takes {len(data)} bytes, at most {limits.COMMAND_BYTES_MAX} are allowed",
                outcome="not_applied",
            )
        result: Result = await self._consensus.propose(data, timeout_s=self.timeout_s(timeout_s))
        return check(result)

    def require_version(self, needed: int) -> None:
        """Raises UpgradeUnfinished or, while a cluster is being formed, Unavailable (both not applied), unless format
        ``needed`` or a newer one is active. The format only ever rises, so what was seen once will do."""
        if needed > self._version:
            self._version = self._active_version()
        if needed <= self._version:
            return
        if self._version == UNDECIDED:
            raise errors.Unavailable(
                "the cluster is being formed: its members have not agreed on a format yet",
                outcome="not_applied", retry_after_s=limits.FAILOVER_S,
            )  # fmt: skip
        raise errors.UpgradeUnfinished(
            f"this needs format {needed}, the cluster has {self._version}: it switches when every member runs a raftfs "
            f"that understands format {needed}",
            outcome="not_applied",
        )

    async def everywhere(self, timeout_s: float | None) -> None:
        """For ``ack="all"``: wait until every member's log durably holds all that is committed by now.

        Raises Unavailable with outcome "applied": the write is done, and a repetition under its key waits again.
        """
        index = self._consensus.commit_index
        ends_s = asyncio.get_running_loop().time() + self.timeout_s(timeout_s)
        while True:
            peers = self._consensus.status().peers
            voters = self._consensus.configuration.voters
            behind = [name for name, peer in peers.items() if name in voters and (peer.match_index or 0) < index]
            if not behind:
                return
            if not self._consensus.is_leader or asyncio.get_running_loop().time() >= ends_s:
                raise errors.Unavailable(
                    f"the write is done, but {', '.join(behind)} did not confirm it",
                    outcome="applied", retry_after_s=1.0,
                )  # fmt: skip
            await asyncio.sleep(limits.EVERYWHERE_POLL_S)
