from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from raftfs.testing.inprocess import InProcessCluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[InProcessCluster]:
    """One node, which leads."""
    async with InProcessCluster(tmp_path, nodes=1) as cluster:
        yield cluster


@pytest.fixture
def url(cluster: InProcessCluster) -> str:
    return cluster.urls[0]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session
