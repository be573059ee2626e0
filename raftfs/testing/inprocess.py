"""Several nodes in one process, without Raft: real HTTP servers on loopback, real services, state and chunks, over the
in-memory log of :mod:`raftfs.testing.fakes`. For tests of what lies above consensus: API, frontend, client."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from raftfs.api import make_app
from raftfs.chunks import ChunkStore
from raftfs.config import MemberConfig, NodeConfig
from raftfs.frontend import Directory, Forwarder
from raftfs.frontend.upstream import Upstream
from raftfs.http import HttpServer
from raftfs.service.members import bootstrap
from raftfs.service.ports import SystemClock
from raftfs.service.service import Service
from raftfs.state import Reader, StateMachine
from raftfs.testing.fakes import FakeConsensus, FakeLog, FakeNetwork, FakeTransport, ManualClock
from raftfs.testing.ports import free_ports
from raftfs.versions import FORMAT_VERSION


class InProcessNode:
    """One of the nodes: ``service`` behind an HTTP server at ``url``. ``stop`` makes it unreachable, at once."""

    def __init__(self, config: NodeConfig, log: FakeLog, machine: StateMachine) -> None:
        self.id, self.url = config.id, config.me.url
        self.consensus = FakeConsensus(log, config.id, ManualClock())
        self._config, self._log, self._machine = config, log, machine
        self._stack = AsyncExitStack()
        self.service: Service

    async def start(self) -> None:
        config, stack = self._config, AsyncExitStack()
        self.service = Service(
            config=config,
            consensus=self.consensus,
            transport=FakeTransport(self._log.network, config.id),
            chunks=ChunkStore(config.data_dir / "chunks"),
            open_reader=lambda: Reader(config.data_dir / "state.db"),
            clock=SystemClock(),
        )
        stack.push_async_callback(self.service.stop)
        upstream = Upstream()
        stack.push_async_callback(upstream.close)
        directory = Directory(
            upstream, [m.url for m in config.members], me=self.url, local=lambda: self.service.cluster.leader
        )
        stack.push_async_callback(directory.close)
        app = make_app(self.service, forwarder=Forwarder(directory, upstream), deadline_s=config.request_deadline_s)
        await stack.enter_async_context(HttpServer(app, config.client_address, grace_s=0.1))
        self._stack = stack
        self._log.network.down.discard(self.id)

    async def stop(self) -> None:
        self._log.network.down.add(self.id)
        await self._stack.aclose()


class InProcessCluster:
    """``async with InProcessCluster(path, nodes=3) as cluster``: the first node leads until ``cluster.log.lead(id)``
    says otherwise (None: nobody)."""

    def __init__(self, path: Path, *, nodes: int = 3, deadline_s: float = 5.0) -> None:
        ids, ports = [f"n{i + 1}" for i in range(nodes)], free_ports(2 * nodes)
        members = [
            MemberConfig(id=name, peer=f"127.0.0.1:{ports[nodes + i]}", url=f"http://127.0.0.1:{ports[i]}")
            for i, name in enumerate(ids)
        ]
        self.network = FakeNetwork(ids)
        self._machines: dict[str, StateMachine] = {}
        self.log = FakeLog(self.network, self._machines, ids[0], bootstrap(members))
        self.nodes: dict[str, InProcessNode] = {}
        self._configs = [
            NodeConfig(id=name, cluster_id="test", data_dir=path / name, members=members, request_deadline_s=deadline_s)
            for name in ids
        ]

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes.values()]

    async def __aenter__(self) -> Self:
        for config in self._configs:
            config.data_dir.mkdir(parents=True, exist_ok=True)
            machine = self._machines[config.id] = StateMachine(config.data_dir / "state.db", version=FORMAT_VERSION)
            self.nodes[config.id] = InProcessNode(config, self.log, machine)
        for node in self.nodes.values():
            await node.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            await node.stop()
        for machine in self._machines.values():
            machine.close()
