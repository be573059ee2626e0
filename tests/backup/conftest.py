from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from raftfs.client import AsyncClient
from raftfs.testing.inprocess import InProcessCluster


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with _client_of_a_cluster(tmp_path / "cluster") as client:
        yield client


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """Of a second, empty cluster."""
    async with _client_of_a_cluster(tmp_path / "other") as client:
        yield client


@asynccontextmanager
async def _client_of_a_cluster(folder: Path) -> AsyncIterator[AsyncClient]:
    async with InProcessCluster(folder, nodes=1) as cluster, AsyncClient(cluster.urls[0]) as client:
        yield client
