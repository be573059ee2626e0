"""One node's use cases, put together from what the node has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftfs import limits
from raftfs.chunks import ChunkStore
from raftfs.config import NodeConfig
from raftfs.service.cluster import Cluster
from raftfs.service.files import Files
from raftfs.service.members import Members
from raftfs.service.ports import Clock, ConsensusPort, TransportPort
from raftfs.service.proposals import Proposer
from raftfs.service.reads import Freshness
from raftfs.service.repair import Backfill, Collector, Expiry, periodically
from raftfs.service.replicas import Replicas
from raftfs.service.snapshots import SnapshotFetcher, SnapshotSource
from raftfs.service.uploads import Uploads, UploadSettings
from raftfs.service.versions import VersionGate
from raftfs.service.workers import Background, ReaderThread, Workers
from raftfs.state import Reader
from raftfs.tls import Credentials


class Service:
    """Make it on the loop, with ``open_reader`` giving readers of the node's database; then ``start`` and, at the end,
    ``stop``. The chunk store, consensus and transport belong to the caller and outlive it."""

    def __init__(
        self, *, config: NodeConfig, consensus: ConsensusPort, transport: TransportPort, chunks: ChunkStore,
        open_reader: Callable[[], Reader], clock: Clock, certificates: Sequence[Credentials] = (),
    ) -> None:  # fmt: skip
        deadline_s = config.request_deadline_s
        self._config = config
        self._background = Background()
        self._workers = Workers(limits.CHUNK_THREADS, "raftfs-chunks")
        self._reader = open_reader()
        self._lists = ReaderThread(open_reader, Reader.close, "raftfs-lists")
        self._housekeeping = ReaderThread(open_reader, Reader.close, "raftfs-housekeeping")
        proposer = Proposer(consensus, clock, deadline_s, active_version=lambda: self._reader.applied().version)
        self.replicas = Replicas(
            me=config.id, configuration=lambda: consensus.configuration, store=chunks, transport=transport, clock=clock,
            workers=self._workers, background=self._background,
        )  # fmt: skip
        self.uploads = Uploads(
            settings=UploadSettings(grace_s=config.chunk_grace_s, expiry_s=config.upload_expiry_s),
            proposer=proposer, consensus=consensus, reader=self._reader, replicas=self.replicas,
            workers=self._workers, background=self._background, clock=clock,
        )  # fmt: skip
        self.files = Files(
            reader=self._reader, lists=self._lists, freshness=Freshness(consensus, deadline_s), proposer=proposer,
            uploads=self.uploads, replicas=self.replicas,
        )  # fmt: skip
        self.backfill = Backfill(self.replicas, self._housekeeping, self._workers)
        self.collector = Collector(
            self.replicas, self._housekeeping, consensus, clock, grace_s=config.chunk_grace_s, timeout_s=deadline_s
        )
        self.expiry = Expiry(proposer, self._reader, consensus, clock)
        self._source = SnapshotSource(
            data_dir=config.data_dir, consensus=consensus, transport=transport, workers=self._workers, clock=clock,
            background=self._background,
        )  # fmt: skip
        self.snapshots = SnapshotFetcher(
            data_dir=config.data_dir, consensus=consensus, transport=transport, workers=self._workers,
            background=self._background,
        )  # fmt: skip
        self.cluster = Cluster(
            config=config, consensus=consensus, transport=transport, reader=self._reader,
            missing_chunks=lambda: self.backfill.missing_at_most(self._reader.newest_chunk()),
            complete_index=lambda: self.backfill.complete_index, clock=clock, certificates=certificates,
        )  # fmt: skip
        self.members = Members(consensus=consensus, cluster=self.cluster, proposer=proposer)
        self.versions = VersionGate(
            reader=self._reader, consensus=consensus, cluster=self.cluster, proposer=proposer, clock=clock,
            hold=not config.auto_switch,
        )  # fmt: skip

    async def start(self) -> None:
        """Begin backfill, collection, expiry, and what keeps the format version."""
        fill_s, collect_s = self._config.backfill_period_s, self._config.collect_period_s
        self._background.spawn(periodically(fill_s, self.backfill.round, "backfill"), "backfill")
        self._background.spawn(periodically(collect_s, self.collector.round, "collection"), "collection")
        self._background.spawn(periodically(collect_s, self.expiry.round, "upload expiry"), "upload expiry")
        self._background.spawn(periodically(limits.MEMBERS_ROUND_S, self.members.round, "new members"), "new members")
        self._background.spawn(self.versions.run(), "format version")

    async def stop(self) -> None:
        """End everything that was started here; requests must have ended before."""
        await self._background.close()
        await self._workers.close()
        await self._lists.close()
        await self._housekeeping.close()
        self._reader.close()
