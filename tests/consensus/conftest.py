"""Makes clusters of plain PySyncObj and of ours, and takes them down again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .guarded_cluster import GuardedCluster, GuardedMaker
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


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[GuardedMaker]:
    """``guarded("abc", **options)``: the same, of ours."""
    clusters: list[GuardedCluster] = []
    with virtual_engine() as clock:

        def make(names: str = "abc", **options: Any) -> GuardedCluster:
            directory = tmp_path / f"cluster {len(clusters)}"
            directory.mkdir()
            clusters.append(GuardedCluster(names, clock, directory, **options))
            return clusters[-1]

        yield make
        for cluster in clusters:
            cluster.close()
