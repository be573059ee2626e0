"""The calls that look at the cluster and change who its members are, awaited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel

from raftfs.client import answers, encoding
from raftfs.client.body import make_body
from raftfs.client.transport import Request, Transport, read_answer
from raftfs.models import ClusterStatus, Member, MemberRequest, MoveMemberRequest, TransferRequest

Model = TypeVar("Model", bound=BaseModel)

_OK = frozenset({200})
_WRITTEN = frozenset({200, 201})
_EMPTY = frozenset({204})


class ClusterCalls:
    """The part of ``AsyncClient`` that is about servers instead of files."""

    _transport: Transport

    async def cluster_status(self, *, timeout: float | None = None) -> ClusterStatus:
        """Leader, members and their health, as the node that answers sees them. Works without a quorum."""
        return await self._json(Request("GET", "/v1/cluster", _OK, timeout_s=timeout), ClusterStatus)

    async def cluster_add(self, member: str, peer: str, url: str, *, timeout: float | None = None) -> Member:
        """Let a new member, whose machine starts with an empty data directory, listen; it votes by itself when it has
        caught up. ``peer``: ``host:port``. Raises Conflict if another member has that id or address."""
        return await self._change_members("", MemberRequest(id=member, peer=peer, url=url), timeout=timeout)

    async def cluster_replace(
        self, member: str, peer: str | None = None, url: str | None = None, *, force: bool = False,
        timeout: float | None = None,
    ) -> Member:  # fmt: skip
        """Put a machine with an empty data directory in the place of a member that is lost. Addresses default to the
        old ones. ``force``: even if the others lack chunks. Raises NotFound, Conflict if the member is alive."""
        present = (await self.cluster_status(timeout=timeout)).members
        # Named, so that the request may be sent twice: the second one means the directory that the first replaced.
        lost = next((one.uuid for one in present if one.id == member), None)
        target, body = f"/{quote(member, safe='')}/replace", MoveMemberRequest(peer=peer, url=url, uuid=lost)
        return await self._change_members(target, body, query=encoding.flags(force=force), timeout=timeout)

    async def cluster_remove(self, member: str, *, force: bool = False, timeout: float | None = None) -> None:
        """End a membership. ``force``: even if the others lack chunks. Raises NotFound, Conflict, Unavailable."""
        target = f"/v1/cluster/members/{quote(member, safe='')}"
        request = Request("DELETE", target, _EMPTY, encoding.flags(force=force), mutation=True, timeout_s=timeout)
        await self._transport.send(request, read_answer)

    async def cluster_transfer(self, to: str | None = None, *, timeout: float | None = None) -> None:
        """Let ``to`` lead, or whoever has the newest log. Raises NotFound, Conflict, Unavailable."""
        await self._transport.send(posted("/v1/cluster/leader", TransferRequest(to=to), {}, timeout), read_answer)

    async def _change_members(
        self, target: str, body: BaseModel, *, query: Mapping[str, str] | None = None, timeout: float | None
    ) -> Member:
        return await self._json(posted(f"/v1/cluster/members{target}", body, query or {}, timeout), Member)

    async def _json(self, request: Request, model: type[Model]) -> Model:
        async def consume(response: aiohttp.ClientResponse) -> Model:
            return answers.parse(model, await read_answer(response), str(response.url))

        return await self._transport.send(request, consume)


def posted(target: str, body: BaseModel, query: Mapping[str, str], timeout: float | None) -> Request:
    """A POST of JSON."""
    data = make_body(body.model_dump_json(by_alias=True, exclude_none=True).encode())
    return Request(
        "POST", target, _WRITTEN, query, {"Content-Type": "application/json"}, data, mutation=True, timeout_s=timeout
    )  # fmt: skip
