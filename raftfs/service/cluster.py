"""The cluster as one node sees it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import raftfs
from raftfs import limits
from raftfs.config import NodeConfig
from raftfs.consensus import MemberRecord
from raftfs.decoding import UNDECODABLE
from raftfs.errors import RaftfsError
from raftfs.models import CertificateReport, Check, ClusterStatus, FormatRange, LeaderRef, Member, NodeReport, Role
from raftfs.service.ports import Clock, ConsensusPort, TransportPort
from raftfs.state import Reader
from raftfs.tls import Credentials
from raftfs.versions import FORMAT_VERSION, FORMAT_VERSION_MIN, UNDECIDED


class NodeStatus(msgspec.Struct, frozen=True, array_like=True):
    """What a member tells the others about itself (``status`` on the peer port). ``format_min`` and ``format_max``: the
    formats that its code understands. ``complete_index``: every chunk that was referenced at that index is there.
    ``rejoining``: how far it is with getting back what was damaged."""

    applied_index: int
    commit_index: int
    revision: int
    missing_chunks: int | None
    format_min: int
    format_max: int
    complete_index: int = 0
    rejoining: str | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(NodeStatus)


class Cluster:
    """Who leads, how far everybody is, and whether this node should get traffic."""

    def __init__(
        self, *, config: NodeConfig, consensus: ConsensusPort, transport: TransportPort, reader: Reader,
        missing_chunks: Callable[[], int | None], complete_index: Callable[[], int], clock: Clock,
        certificates: Sequence[Credentials],
    ) -> None:  # fmt: skip
        self._certificates = certificates
        self._config, self._consensus, self._transport, self._clock = config, consensus, transport, clock
        self._reader, self._missing_chunks, self._complete_index = reader, missing_chunks, complete_index
        self.node_id = config.id
        transport.handle("status", self._on_status)

    @property
    def is_leader(self) -> bool:
        return self._consensus.is_leader

    @property
    def leader(self) -> LeaderRef | None:
        """The leader as far as this node knows."""
        leader = self._consensus.leader_id
        return next((LeaderRef(id=m.id, url=m.url) for m in self._members if m.id == leader), None)

    @property
    def term(self) -> int:
        """The Raft term as this node knows it."""
        return self._consensus.term

    @property
    def members(self) -> list[LeaderRef]:
        """Id and client URL of every member."""
        return [LeaderRef(id=m.id, url=m.url) for m in self._members]

    @property
    def _members(self) -> tuple[MemberRecord, ...]:
        return self._consensus.configuration.members

    async def status(self) -> ClusterStatus:
        """Asks every member at once and waits a short time; those that do not answer are unreachable."""
        answers = await self.ask_all()
        status, applied = self._consensus.status(), self._reader.applied()
        commit = max(answer.commit_index for answer in answers.values() if answer is not None)
        return ClusterStatus(
            cluster_id=self._config.cluster_id,
            revision=applied.revision,
            term=status.term,
            leader=self.leader,
            members=[self._member(m, answers.get(m.id), commit) for m in self._members],
            quorum=status.quorum,
            state_hash=applied.state_hash.hex(),
            applied_index=applied.index,
            format=applied.version,
            node=self.report(),
        )

    def report(self) -> NodeReport:
        """What this node says of itself."""
        free_bytes, total_bytes = disk_space(self._config.data_dir)
        return NodeReport(
            id=self.node_id,
            version=raftfs.__version__,
            time_ms=self._clock.wall_ms(),
            data_dir=str(self._config.data_dir),
            free_bytes=free_bytes,
            total_bytes=total_bytes,
            checks=[Check(name=name, ok=ok, text=text) for name, ok, text in self.ready()],
            certificates=[CertificateReport(name=each.name, expires_ms=each.expires_ms) for each in self._certificates],
        )

    async def ask_all(self) -> dict[str, NodeStatus | None]:
        """What each member says of itself now, this one too; None for those that do not answer in a short time."""
        others = [member.id for member in self._members if member.id != self.node_id]
        answers = dict(zip(others, await asyncio.gather(*map(self._ask, others)), strict=True))
        return {**answers, self.node_id: self._here()}

    def _member(self, member: MemberRecord, answer: NodeStatus | None, commit: int) -> Member:
        link = self._consensus.status().peers.get(member.id)
        return Member(
            id=member.id,
            url=member.url,
            peer=member.peer,
            role=self._role(member),
            reachable=answer is not None,
            applied_index=None if answer is None else answer.applied_index,
            lag=None if answer is None else max(commit - answer.applied_index, 0),
            missing_chunks=None if answer is None else answer.missing_chunks,
            complete_index=None if answer is None else answer.complete_index,
            formats=None if answer is None else FormatRange(min=answer.format_min, max=answer.format_max),
            refused=None if link is None else link.refused,
            rejoining=None if answer is None else answer.rejoining,
            uuid=member.uuid or None,
        )

    def _role(self, member: MemberRecord) -> Role:
        if not member.voter:
            return "learner"
        return "leader" if member.id == self._consensus.leader_id else "follower"

    def _here(self) -> NodeStatus:
        applied = self._reader.applied()
        return NodeStatus(
            applied.index, self._consensus.commit_index, applied.revision, self._missing_chunks(),
            format_min=FORMAT_VERSION_MIN, format_max=FORMAT_VERSION, complete_index=self._complete_index(),
            rejoining=self._consensus.rejoining,
        )  # fmt: skip

    async def _on_status(self, peer: str, payload: bytes) -> bytes:
        return _encoder.encode(self._here())

    async def _ask(self, peer: str) -> NodeStatus | None:
        try:
            answer = await self._transport.request(peer, "status", b"", timeout_s=limits.STATUS_S_MAX)
            return _decoder.decode(answer)
        except (RaftfsError, *UNDECODABLE):
            return None

    def ready(self) -> list[tuple[str, bool, str]]:
        """Checks (name, passed, explanation); the node should get traffic if all pass. Does not wait for anybody."""
        status = self._consensus.status()
        lag = status.commit_index - status.applied_index
        rejoining = self._consensus.rejoining
        return [
            ("leader", status.leader_id is not None, f"leader: {status.leader_id or self._leaderless()}"),
            ("quorum", *self._heard(status.quorum)),
            ("lag", lag <= limits.READY_LAG_ENTRIES_MAX, f"{lag} committed entries are not applied yet"),
            ("format", *_formed(self._reader.applied().version)),
            ("disk", *_disk(self._config.data_dir)),
            ("whole", rejoining is None, f"rejoining: {rejoining}" if rejoining else "no data are missing"),
        ]

    def _leaderless(self) -> str:
        awaited = self._consensus.awaited
        if not awaited:
            return "none known"
        return f"none; without data, this node votes only when it has heard {', '.join(awaited)}, without data, too"

    def _heard(self, quorum: bool) -> tuple[bool, str]:
        contact_s = self._consensus.last_contact_s()
        most_s = 2 * self._config.times.election_timeout_ms_max / 1000
        heard = "never heard" if contact_s is None else f"heard {contact_s:.1f} s ago"
        if self.is_leader:
            return quorum, "a majority answers this leader" if quorum else "no majority answers this leader"
        return contact_s is not None and contact_s <= most_s, f"a leader with a quorum: {heard}"


def _formed(version: int) -> tuple[bool, str]:
    formed = version != UNDECIDED
    return formed, f"format {version}" if formed else "the cluster is being formed, its members agree on no format yet"


def disk_space(path: Path) -> tuple[int, int]:
    """Bytes that this process may still write beside ``path``, and the size of that file system."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _disk(path: Path) -> tuple[bool, str]:
    free_bytes = disk_space(path)[0]
    return free_bytes >= limits.DISK_FREE_BYTES_MIN, f"{free_bytes} bytes are free in {path}"
