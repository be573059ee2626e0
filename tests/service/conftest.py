"""A trio for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from .trio import Trio, trio


@pytest_asyncio.fixture
async def three(tmp_path: Path) -> AsyncIterator[Trio]:
    async with trio(tmp_path) as cluster:
        yield cluster
