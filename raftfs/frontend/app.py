"""The frontend's application: everything of the API is passed on; health, metrics and the page are its own."""

from __future__ import annotations

from aiohttp import web

from raftfs.frontend.forward import Forwarder
from raftfs.http import Call, HttpMetrics
from raftfs.http.health import health_response
from raftfs.http.page import page_response


class FrontendApp:
    """Serve it with :class:`raftfs.http.HttpServer`."""

    def __init__(self, forwarder: Forwarder, *, deadline_s: float) -> None:
        self.metrics = HttpMetrics()
        self.deadline_s = deadline_s
        self._forwarder = forwarder

    async def respond(self, call: Call) -> web.StreamResponse:
        if call.write:
            return await self._forwarder.write(call)
        match call.route:
            case "files" | "dirs" | "export":
                return await self._forwarder.read(call)
            case "livez":
                return health_response(call, [("process", True, "the process answers")])
            case "readyz":
                return health_response(call, await self._checks())
            case "metrics":
                call.query()
                return self.metrics.response()
            case "page":
                call.query()
                return page_response()
            case _:
                return await self._forwarder.read(call, leader_first=True)

    async def _checks(self) -> list[tuple[str, bool, str]]:
        leader = await self._forwarder.directory.find()  # what was known a while ago says nothing about now
        return [("leader", leader is not None, f"{leader} leads" if leader else "no node says who leads")]
