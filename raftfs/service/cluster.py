"""The cluster as one node sees it."""

from __future__ import annotations

from raftfs.models import ClusterStatus, LeaderRef


class Cluster:
    """Who leads, how far everybody is, and whether this node should get traffic."""

    node_id: str

    @property
    def is_leader(self) -> bool:
        raise NotImplementedError

    @property
    def leader(self) -> LeaderRef | None:
        raise NotImplementedError

    async def status(self) -> ClusterStatus:
        raise NotImplementedError

    def ready(self) -> list[tuple[str, bool, str]]:
        raise NotImplementedError
