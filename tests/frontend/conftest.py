from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from raftfs.config import FrontendConfig
from raftfs.frontend import Frontend
from raftfs.testing.inprocess import InProcessCluster
from tests.consensus.ports import free_address

Open = Callable[..., AbstractAsyncContextManager[Frontend]]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[InProcessCluster]:
    """Three nodes; n1 leads."""
    async with InProcessCluster(tmp_path, nodes=3) as cluster:
        yield cluster


@pytest.fixture
def open_frontend() -> Open:
    """A frontend of the given nodes: ``async with open_frontend(urls, deadline_s=2) as frontend``."""

    def make(nodes: list[str], deadline_s: float = 5.0) -> Frontend:
        listen = free_address()
        return Frontend(FrontendConfig(listen=listen, nodes=nodes, request_deadline_s=deadline_s))

    return make


@pytest.fixture
async def url(cluster: InProcessCluster, open_frontend: Open) -> AsyncIterator[str]:
    """A frontend of the three nodes."""
    async with open_frontend(cluster.urls) as frontend:
        yield frontend.url


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session
