"""The application of a node: which handler answers which route, and where a write is done."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from raftfs.api.cluster import ClusterRoutes
from raftfs.api.members import MemberRoutes
from raftfs.api.reading import Reading
from raftfs.api.writing import Write, Writes
from raftfs.errors import NotLeader
from raftfs.frontend.forward import Forwarder
from raftfs.http import Call, HttpMetrics, names, problem_response
from raftfs.http.page import page_response
from raftfs.limits import REQUEST_DEADLINE_S_DEFAULT
from raftfs.service import Cluster, Files, Members


class ServicePort(Protocol):
    """What the API needs of a node: ``raftfs.service`` as the node composes it."""

    @property
    def files(self) -> Files: ...
    @property
    def cluster(self) -> Cluster: ...
    @property
    def members(self) -> Members: ...


def make_app(service: ServicePort, *, forwarder: Forwarder, deadline_s: float = REQUEST_DEADLINE_S_DEFAULT) -> NodeApp:
    """The application to serve with :class:`raftfs.http.HttpServer`. ``forwarder`` reaches the other nodes;
    ``deadline_s`` is for requests that name none."""
    return NodeApp(service, forwarder, deadline_s)


class NodeApp:
    """Answers calls from one node's service, or through the leader's."""

    def __init__(self, service: ServicePort, forwarder: Forwarder, deadline_s: float) -> None:
        self.metrics = HttpMetrics()
        self.deadline_s = deadline_s
        self._cluster = service.cluster
        self._forwarder = forwarder
        reading, writes = Reading(service.files), Writes(service.files)
        members = MemberRoutes(service.members, service.cluster)
        self._reads = {
            ("files", "GET"): reading.get_file,
            ("files", "HEAD"): reading.head_file,
            ("dirs", "GET"): reading.get_directory,
            ("dirs", "HEAD"): reading.head_directory,
            ("export", "GET"): reading.get_export,
            ("export", "HEAD"): reading.get_export,
        }
        self._writes = {
            ("files", "PUT"): writes.put_file,
            ("files", "PATCH"): writes.patch_file,
            ("files", "DELETE"): writes.delete_file,
            ("dirs", "PUT"): writes.put_directory,
            ("dirs", "DELETE"): writes.delete_directory,
            ("rename", "POST"): writes.rename,
            ("copy", "POST"): writes.copy,
            ("cluster/members", "POST"): members.add,
            ("cluster/member", "DELETE"): members.remove,
            ("cluster/replace", "POST"): members.replace,
            ("cluster/leader", "POST"): members.transfer,
        }
        self._routes = ClusterRoutes(service.cluster, self.metrics)

    async def respond(self, call: Call) -> web.StreamResponse:
        route = (call.route, call.method)
        if (read := self._reads.get(route)) is not None:
            return await read(call)
        if (write := self._writes.get(route)) is not None:
            return await self._write(call, write(call))
        return await self._other(call)

    async def _write(self, call: Call, run: Write) -> web.StreamResponse:
        here = _Here(self._cluster, run)
        if call.hops() == 0:
            try:
                return await self._forwarder.write(call, here)
            except NotLeader as error:
                return self._refuse(error)
        # Somebody forwarded this to us as the leader. Passing it on again could go round in circles.
        if not here.leads():
            return self._refuse(NotLeader(f"{self._cluster.node_id} does not lead"))
        try:
            await call.body.buffer()
            return await run()
        except NotLeader as error:
            return self._refuse(error)

    def _refuse(self, error: NotLeader) -> web.Response:
        error.outcome = "not_applied"
        leader = self._cluster.leader
        known = leader is not None and leader.id != self._cluster.node_id
        return problem_response(error, write=True, headers={names.LEADER: leader.url} if known and leader else None)

    async def _other(self, call: Call) -> web.StreamResponse:
        match call.route:
            case "cluster":
                return await self._routes.status(call)
            case "cluster/leader":
                return self._routes.leader(call)
            case "cluster/members":
                return await self._routes.members(call)
            case "livez":
                return self._routes.livez(call)
            case "readyz":
                return self._routes.readyz(call)
            case "metrics":
                return await self._routes.metrics(call)
            case _:
                call.query()
                return page_response()


class _Here:
    """A write that can be done on this node."""

    def __init__(self, cluster: Cluster, run: Write) -> None:
        self._cluster = cluster
        self._run = run

    def leads(self) -> bool:
        return self._cluster.is_leader

    async def run(self) -> web.StreamResponse:
        return await self._run()
