from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raftfs.client import AsyncClient
from raftfs.testing.inprocess import InProcessCluster


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with (
        InProcessCluster(tmp_path / "cluster", nodes=1) as cluster,
        AsyncClient(cluster.urls[0]) as client,
    ):
        yield client


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A second, empty cluster."""
    async with (
        InProcessCluster(tmp_path / "other", nodes=1) as cluster,
        AsyncClient(cluster.urls[0]) as client,
    ):
        yield client
