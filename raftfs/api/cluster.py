"""The cluster, health and metrics routes of a node."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from raftfs import fsync
from raftfs.http import Call, HttpMetrics, json_response, names
from raftfs.http.health import health_response
from raftfs.models import ClusterStatus
from raftfs.service import Cluster


class ClusterRoutes:
    """Read-only views of the cluster, as this node sees it. They are answered without a quorum too."""

    def __init__(self, cluster: Cluster, metrics: HttpMetrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._gauges = _Gauges(metrics.registry)

    async def status(self, call: Call) -> web.Response:
        call.query()
        status = await self._cluster.status()
        return web.Response(
            body=status.model_dump_json().encode(), content_type="application/json", headers=_headers(status)
        )

    def leader(self, call: Call) -> web.Response:
        """Who leads, at once and without asking anybody: forwarders need it most when nodes do not answer."""
        call.query()
        cluster = self._cluster
        leader = cluster.leader
        answer = {
            "leader": None if leader is None else {"id": leader.id, "url": leader.url},
            "term": cluster.term,
            "node": cluster.node_id,
            "members": [{"id": member.id, "url": member.url} for member in cluster.members],
        }
        return json_response(answer, headers={"Cache-Control": "no-store"})

    async def members(self, call: Call) -> web.Response:
        call.query()
        status = await self._cluster.status()
        return json_response({"members": [member.model_dump() for member in status.members]}, headers=_headers(status))

    def livez(self, call: Call) -> web.Response:
        return health_response(call, [("process", True, "the process answers")])

    def readyz(self, call: Call) -> web.Response:
        return health_response(call, self._cluster.ready())

    async def metrics(self, call: Call) -> web.Response:
        call.query()
        self._gauges.update(await self._cluster.status(), self._cluster.node_id)
        return self._metrics.response()


def _headers(status: ClusterStatus) -> dict[str, str]:
    return {names.REVISION: str(status.revision), "Cache-Control": "no-store"}


class _Gauges:
    """The cluster in numbers, set anew for each scrape. What a node cannot know has no series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"raftfs_{name}", text, labels, registry=registry)

        self._term = gauge("raft_term", "Current Raft term")
        self._is_leader = gauge("raft_is_leader", "1 if this node leads")
        self._has_leader = gauge("raft_has_leader", "1 if this node knows a leader")
        self._quorum = gauge("raft_has_quorum", "1 if this node sees a quorum")
        self._commit = gauge("raft_commit_index", "Index of the last entry known to be committed")
        self._applied = gauge("raft_applied_index", "Index of the last entry applied here")
        self._format = gauge("format_version", "Format version that is active here")
        self._format_max = gauge(
            "member_format_version_max", "Newest format that a member's code understands", "member"
        )
        self._revision = gauge("revision", "Revision of the namespace here")
        self._lag = gauge("member_lag_entries", "Entries that a member is behind the commit index", "member")
        self._missing = gauge("member_missing_chunks", "Chunks that a member has still to fetch", "member")
        self._reachable = gauge("member_reachable", "1 if this node reaches the member", "member")
        self._free = gauge("disk_free_bytes", "Bytes that this node may still write to the disk of its data directory")
        self._size = gauge("disk_size_bytes", "Size of the disk of its data directory")
        self._check = gauge("check_ok", "1 if what /readyz looks at is as it should be", "check")
        registry.register(_FsyncTimes())

    def update(self, status: ClusterStatus, me: str) -> None:
        self._term.set(status.term)
        self._is_leader.set(status.leader is not None and status.leader.id == me)
        self._has_leader.set(status.leader is not None)
        self._quorum.set(status.quorum)
        self._revision.set(status.revision)
        self._format.set(status.format or 0)
        if status.node is not None:
            self._free.set(status.node.free_bytes)
            self._size.set(status.node.total_bytes)
            for check in status.node.checks:
                self._check.labels(check.name).set(check.ok)
        for per_member in (self._lag, self._missing, self._reachable, self._format_max):
            per_member.clear()
        for member in status.members:
            self._reachable.labels(member.id).set(member.reachable)
            if member.lag is not None:
                self._lag.labels(member.id).set(member.lag)
            if member.formats is not None:
                self._format_max.labels(member.id).set(member.formats.max)
            if member.missing_chunks is not None:
                self._missing.labels(member.id).set(member.missing_chunks)
            if member.id == me and member.applied_index is not None:
                self._applied.set(member.applied_index)
                self._commit.set(member.applied_index + (member.lag or 0))


class _FsyncTimes(Collector):
    """How long the disk takes to make things durable, as a histogram. It is counted for the whole process."""

    def collect(self) -> Iterator[HistogramMetricFamily]:
        counts, sum_s = fsync.times.read()
        bounds = [*map(floatToGoString, fsync.TIMES_S), "+Inf"]
        buckets = list(zip(bounds, map(float, itertools.accumulate(counts)), strict=True))
        yield HistogramMetricFamily("raftfs_fsync_seconds", "Time of one fsync", buckets=buckets, sum_value=sum_s)
