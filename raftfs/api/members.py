"""Routes that change who the members are and who leads. They are writes, done by the leader."""

from __future__ import annotations

from aiohttp import web

from raftfs.api.options import Writing
from raftfs.api.writing import Write, check_empty, check_json, read_json
from raftfs.errors import InvalidRequest
from raftfs.http import Call, json_response
from raftfs.models import MemberRequest, MoveMemberRequest, TransferRequest
from raftfs.service import Cluster, Members

_QUERY = ("forward",)


class MemberRoutes:
    """``POST /v1/cluster/members``, ``DELETE /v1/cluster/members/{id}``, ``POST /v1/cluster/members/{id}/replace`` and
    ``POST /v1/cluster/leader``."""

    def __init__(self, members: Members, cluster: Cluster) -> None:
        self._members, self._cluster = members, cluster

    def add(self, call: Call) -> Write:
        _begin(call, _QUERY)

        async def run() -> web.StreamResponse:
            asked = await read_json(call, MemberRequest)
            new = await self._members.add(asked.id, asked.peer, asked.url, timeout_s=call.remaining_s())
            return await self._answer(asked.id, status=201 if new else 200)

        return run

    def remove(self, call: Call) -> Write:
        query = call.query((*_QUERY, "force"))
        Writing(call, query)
        check_empty(call)
        force = query.flag("force")

        async def run() -> web.StreamResponse:
            await self._members.remove(call.path, force=force, timeout_s=call.remaining_s())
            return web.Response(status=204)

        return run

    def replace(self, call: Call) -> Write:
        force = _begin(call, (*_QUERY, "force"))

        async def run() -> web.StreamResponse:
            asked = await read_json(call, MoveMemberRequest)
            await self._members.replace(
                call.path, asked.peer, asked.url, uuid=asked.uuid, force=force, timeout_s=call.remaining_s()
            )  # fmt: skip
            return await self._answer(call.path, status=200)

        return run

    def transfer(self, call: Call) -> Write:
        _begin(call, _QUERY)

        async def run() -> web.StreamResponse:
            asked = await read_json(call, TransferRequest)
            await self._members.transfer(asked.to, timeout_s=call.remaining_s())
            leader = self._cluster.leader
            return json_response({"leader": None if leader is None else leader.model_dump()})

        return run

    async def _answer(self, name: str, *, status: int) -> web.Response:
        found = next((member for member in (await self._cluster.status()).members if member.id == name), None)
        if found is None:
            raise InvalidRequest(f"{name} was removed meanwhile", outcome="applied")
        return json_response(found.model_dump(), status=status)


def _begin(call: Call, allowed: tuple[str, ...]) -> bool:
    """Check what can be checked without the body. Whether the query says ``force``."""
    query = call.query(allowed)
    Writing(call, query)
    check_json(call, ("application/json",))
    return "force" in allowed and query.flag("force")
