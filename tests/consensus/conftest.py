"""Makes clusters of plain PySyncObj, and takes them down again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .plain_cluster import PlainCluster, PlainMaker, virtual_engine


@pytest.fixture
def plain() -> Iterator[PlainMaker]:
    """``plain("abc", **configuration)``: a cluster of plain PySyncObj, one node for each letter, all connected."""
    clusters: list[PlainCluster] = []
    with virtual_engine() as clock:

        def make(names: str = "abc", **configuration: Any) -> PlainCluster:
            clusters.append(PlainCluster(names, clock, **configuration))
            return clusters[-1]

        yield make
        for cluster in clusters:
            cluster.close()
