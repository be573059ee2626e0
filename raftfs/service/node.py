"""A whole server from its configuration: the one place that knows every part of a node and puts them together.

Start: lock and identity of the data directory, state, journal, peer port, use cases, and last the HTTP port, so that
nobody is answered before everything stands. Stop: the same backwards.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from raftfs import fsync
from raftfs.api import make_app
from raftfs.chunks import ChunkStore
from raftfs.config import NodeConfig
from raftfs.consensus import (
    Configuration,
    Consensus,
    Entry,
    LogSizes,
    PeerTransport,
    RejoinFile,
    Roster,
    decode_configuration,
    our_versions,
)
from raftfs.errors import ConfigError, CorruptData, StorageFull
from raftfs.frontend import Directory, Forwarder
from raftfs.frontend.upstream import Upstream
from raftfs.http import HttpServer
from raftfs.service import recovery
from raftfs.service.datadir import check_identity, lock
from raftfs.service.members import bootstrap
from raftfs.service.ports import SystemClock
from raftfs.service.service import Service
from raftfs.service.snapshots import install
from raftfs.state import Reader, StateMachine
from raftfs.tls import Credentials, node_credentials, peer_credentials, watching

log = logging.getLogger(__name__)

_HAND_OVER_S_MAX: Final = 2.0


class Node:
    """One server inside your own asyncio program: ``async with Node(NodeConfig(...)) as node: await node.wait()``.

    Entering raises ConfigError (wrong configuration or data directory), CorruptData (damage on disk, naming the file),
    DataTooNew or DataTooOld (other code wrote the data), or OSError (a port that cannot be had).
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.service: Service
        self.url = ""
        """where the HTTP API answers"""
        self._consensus: Consensus
        self._stack = AsyncExitStack()
        self._peer_tls: Credentials | None = None
        self._client_tls: Credentials | None = None
        self._life: asyncio.Task[BaseException]

    async def __aenter__(self) -> Self:
        # Once: a node that begins anew later must not end over files that are being replaced at that moment.
        self._peer_tls = None if self.config.peer_tls is None else peer_credentials(self.config.peer_tls)
        self._client_tls = None if self.config.client_tls is None else node_credentials(self.config.client_tls)
        await self._begin()
        self._life = asyncio.create_task(self._live(), name="node")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        await self._stack.aclose()

    async def wait(self) -> None:
        """Wait until the node must not go on, and raise why. Cancel it to go on without."""
        raise await asyncio.shield(self._life)

    def describe(self) -> str:
        """What it is and who leads, in one line for people. Asks neither the disk nor anybody."""
        cluster, rejoining = self.service.cluster, self._consensus.rejoining
        leader = cluster.leader if self._consensus.status().quorum else None  # it goes on naming a silent one
        role = "leads" if cluster.is_leader else f"follows {leader.id}" if leader else "knows no leader"
        state = f"rejoining, {rejoining}" if rejoining else f"{role}, term {cluster.term}"
        return f"{self.config.id} of {self.config.cluster_id}: {state}"

    def reload(self) -> None:
        """Use the certificate files as they are now, for new connections. Those that cannot be used change nothing."""
        for each in self._credentials:
            each.reload()

    @property
    def _credentials(self) -> list[Credentials]:
        return [each for each in (self._client_tls, self._peer_tls) if each is not None]

    async def _begin(self) -> None:
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except CorruptData as error:
                raise self._with_way_out(error) from error
            self._stack = stack.pop_all()

    def _with_way_out(self, error: CorruptData) -> CorruptData:
        data_dir = self.config.data_dir
        return CorruptData(
            f"{error.detail}. To see all that is damaged: raftfs fsck --data-dir {data_dir}; "
            f"to get it back from the other members: raftfs fsck --repair --data-dir {data_dir}"
        )

    async def _live(self) -> BaseException:
        """Begin anew whenever a snapshot is ready to be installed; end with the reason why this node must stop."""
        while True:
            ready: asyncio.Future[Any] = asyncio.ensure_future(self.service.snapshots.ready.wait())
            failed: asyncio.Future[Any] = self._consensus.failed
            try:
                await asyncio.wait({ready, failed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ready.cancel()
            if self._consensus.failed.done():
                reason = self._consensus.failed.result()
                return self._with_way_out(reason) if isinstance(reason, CorruptData) else reason
            if self.service.snapshots.too_new is not None:
                log.critical("this node stops: %s", self.service.snapshots.too_new)
                return self.service.snapshots.too_new
            log.info("restarting on the snapshot")
            try:
                await self._stack.aclose()
                await self._begin()
            except Exception as error:
                log.critical("this node stops: %s", error, exc_info=error)
                return error

    async def _start(self, stack: AsyncExitStack) -> None:
        config, data_dir = self.config, self.config.data_dir
        fsync.times.clock = time.perf_counter
        stack.callback(os.close, lock(data_dir))
        if (done := recovery.finish(data_dir)) is not None:
            log.warning("finished a recovery: %s is a cluster of one from entry %d on", done.id, done.index)
        own_uuid = check_identity(config)
        install(data_dir)
        state = StateMachine(data_dir / "state.db")
        stack.callback(state.close)
        chunks = ChunkStore(data_dir / "chunks")
        index, configuration = _members(config, state)
        mark = _mark(data_dir, configuration)
        founder = data_dir / "founder"
        roster = Roster(
            me=config.id, uuid=own_uuid, configuration=configuration, index=index,
            founder=founder.exists(), keep_founder=lambda: fsync.write_durably(founder, b""),
        )  # fmt: skip
        transport = PeerTransport(
            roster=roster,
            cluster_id=config.cluster_id,
            listen=config.peer_address,
            tls=self._peer_tls,
            versions=lambda: our_versions(state.version),
        )
        self._consensus = Consensus(
            me=config.id,
            configuration=configuration,
            configuration_index=index,
            roster=roster,
            data_dir=data_dir,
            applier=StateApplier(state),
            applied_index=state.applied_index,
            times=config.times,
            transport=transport,
            sizes=LogSizes(config.journal_segment_bytes, config.journal_segments_kept),
            on_behind=lambda leader: self.service.snapshots.behind(leader),
            mark=mark,
        )
        await self._consensus.start()
        stack.push_async_callback(self._consensus.stop)
        self.service = Service(
            config=config,
            consensus=self._consensus,
            transport=transport,
            chunks=chunks,
            open_reader=lambda: Reader(data_dir / "state.db"),
            clock=SystemClock(),
            certificates=self._credentials,
        )
        stack.push_async_callback(self.service.stop)
        await transport.start()
        stack.push_async_callback(transport.stop)
        await self.service.start()
        self.url = await self._serve_http(stack)
        stack.push_async_callback(self._hand_over)
        log.info(
            "member %s of cluster %s: %s, peers on %s", config.id, config.cluster_id, self.url, config.peer_address
        )

    async def _hand_over(self) -> None:
        """A leader that is stopped lets another one lead first, so that nobody waits for an election."""
        if self._consensus.is_leader and len(self._consensus.configuration.voters) > 1:
            await self._consensus.transfer(timeout_s=_HAND_OVER_S_MAX)

    async def _serve_http(self, stack: AsyncExitStack) -> str:
        config = self.config
        upstream = Upstream(self._client_tls)
        stack.push_async_callback(upstream.close)
        urls = [member.url for member in config.members]
        urls += [member.url for member in self._consensus.configuration.members]
        directory = Directory(
            upstream, urls, me=config.me.url, local=lambda: self.service.cluster.leader,
            term=lambda: self._consensus.term, secure=not config.insecure,
        )  # fmt: skip
        stack.push_async_callback(directory.close)
        app = make_app(self.service, forwarder=Forwarder(directory, upstream), deadline_s=config.request_deadline_s)
        app.metrics.show_certificates(self._credentials)
        await stack.enter_async_context(watching(self._credentials))
        server = await stack.enter_async_context(HttpServer(app, config.client_address, tls=self._client_tls))
        return server.url


class StateApplier:
    """The state machine as consensus calls it."""

    def __init__(self, state: StateMachine) -> None:
        self._state = state

    def apply(self, entries: Sequence[Entry]) -> list[list[Any]]:
        """A full disk ends it early: what was applied before is answered, and the rest comes again."""
        answers: list[list[Any]] = []
        for entry in entries:
            try:
                answers.append(list(self._state.apply(entry.index, entry.term, entry.commands, entry.configuration)))
            except StorageFull:
                if not answers:
                    raise
                break
        return answers

    def checkpoint(self) -> None:
        self._state.checkpoint()


def _members(config: NodeConfig, state: StateMachine) -> tuple[int, Configuration]:
    """Who the members are: what the state knows, or, before the first entry that says so, the configuration file."""
    stored = state.configuration
    if stored is not None:
        return stored[0], decode_configuration(stored[1])
    return 0, bootstrap(config.members)


def _mark(data_dir: Path, configuration: Configuration) -> RejoinFile:
    """Whether this member rejoins. Raises ConfigError if there is nobody from whom it could get its data."""
    mark = RejoinFile(data_dir)
    if mark.content is not None:
        log.warning("this member rejoins: %s", "; ".join(mark.content.damaged))
    if mark.stage in ("terms", "log") and len(configuration.voters) == 1:
        raise ConfigError(
            f"the data of this node were damaged ({data_dir / 'rejoin.json'}), and it is the only member: there is "
            "nobody to get them from. What was found damaged lies in the folders damaged-* beside that file"
        )
    return mark
