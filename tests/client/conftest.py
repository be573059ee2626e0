"""A real server with one member for the calls, and a scripted one for what a network can do to them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from raftfs import AsyncClient, Client, Node, NodeConfig
from raftfs.client.loopthread import LoopThread
from raftfs.config import MemberConfig, RaftTimes
from raftfs.testing.ports import free_ports

from .scripted import ScriptedServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node that is a cluster of its own, on a loop thread of this process."""
    http, peer = free_ports(2)
    folder: Path = tmp_path_factory.mktemp("node")
    config = NodeConfig(
        id="n1",
        cluster_id="client-tests",
        data_dir=folder / "n1",
        members=[MemberConfig(id="n1", peer=f"127.0.0.1:{peer}", url=f"http://127.0.0.1:{http}")],
        times=RaftTimes(heartbeat_ms=20, election_timeout_ms_min=100, election_timeout_ms_max=200),
    )
    thread = LoopThread()
    node = Node(config)
    try:
        thread.run(node.__aenter__())
        try:
            yield node.url
        finally:
            thread.run(node.__aexit__(None, None, None))
    finally:
        thread.stop()


@pytest.fixture
async def fs(server_url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server_url) as client:
        yield client


@pytest.fixture
def blocking(server_url: str) -> Iterator[Client]:
    with Client(server_url) as client:
        yield client


@pytest.fixture
def folder(server_url: str) -> str:
    """A directory of the store for one test, not made yet."""
    return f"/test-{next(_numbers)}"


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def quick(scripted: ScriptedServer) -> AsyncIterator[AsyncClient]:
    """A client with patience for the scripted server, but not much."""
    async with AsyncClient(scripted.url, deadline_s=20, attempt_s=5) as client:
        yield client


@pytest.fixture
def scripted_aside() -> Iterator[ScriptedServer]:
    """A scripted server on a thread of its own, for tests that block."""
    thread = LoopThread()
    server = thread.run(ScriptedServer().start())
    yield server
    thread.run(server.stop())
    thread.stop()
