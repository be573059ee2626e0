"""Faults that change who the members are: through the HTTP API, as an operator would, while clients work.

One at a time: to empty a second machine before the first one's successor holds what it held would lose data, and
nobody promises otherwise.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, Final

import aiohttp

from raftfs.testing.nemesis.servers import Servers
from raftfs.testing.nemesis.watch import Watch

_ASK_S_MAX: Final = 6.0
_CHANGE_S_MAX: Final = 300.0  # while one of three listens only, each fault that hits another holds it up
_TRANSFER_S_MAX: Final = 20.0
_REFUSAL_S_MAX: Final = 20.0
_POLL_S: Final = 0.3


class Members:
    """``complaints``: what did not become of a change. ``refused`` counts emptied members that were seen refused."""

    def __init__(self, servers: Servers, watch: Watch) -> None:
        self._servers, self._watch = servers, watch
        self._one_at_a_time = asyncio.Lock()
        self.complaints: list[str] = []
        self.refused = 0

    async def transfer(self, to: str, dice: random.Random) -> str | None:
        """Ask for another leader until that is done. None if it is not in time."""
        body = {"to": to} if dice.random() < 0.7 else {}
        end = time.monotonic() + _TRANSFER_S_MAX
        while time.monotonic() < end:
            before = await self._watch.leader()
            if await self._ask("POST", "leader", body, dice) == 200:
                return f"{before} -> {await self._watch.leader()}, asked for {body.get('to', 'any')}"
            await asyncio.sleep(_POLL_S)
        return None

    async def replace(self, node: str, lasts_s: float, dice: random.Random) -> str | None:
        """A member loses its disk. Under its old name it is refused; then it is replaced, and votes again. None if it
        was not done."""
        async with self._one_at_a_time:
            if self.complaints:
                return None  # the one before may not hold yet what this one would lose
            if node not in self._servers.first:
                node = dice.choice(self._servers.first)
            await asyncio.to_thread(self._servers.empty, node)
            self._servers.start(node)
            seen = await self._is_refused(node, lasts_s)
            if seen is None:
                return f"{node} emptied, and let in"
            goes_on = dice.random() < 0.5
            if not goes_on:
                await asyncio.to_thread(self._servers.empty, node)
            await self._until_replaced(node, dice)
            self._servers.start(node)
            await self._until_it_votes(node, "replaced")
            return (
                f"{node} emptied, {'refused' if seen else 'unheard'}, replaced by {'itself' if goes_on else 'another'}"
            )

    async def grow_and_shrink(self, lasts_s: float, dice: random.Random) -> str | None:
        """One more member, that votes, and goes. Its process runs on. None if it was not done."""
        async with self._one_at_a_time:
            if self.complaints:
                return None
            new = self._servers.spare
            assert new is not None
            await asyncio.to_thread(self._servers.empty, new)
            self._servers.start(new)
            body = {"id": new, "peer": self._servers.peers[new], "url": self._servers.urls[new]}
            await self._until_asked("POST", "members", body, f"{new} was not added", dice)
            self._servers.nodes.append(new)
            try:
                await self._until_it_votes(new, "added")
                await asyncio.sleep(lasts_s)
            finally:
                self._servers.nodes.remove(new)
            await self._until_asked("DELETE", f"members/{new}", None, f"{new} was not removed", dice, gone=404)
            return f"{new} added and removed"

    async def _is_refused(self, node: str, lasts_s: float) -> bool | None:
        """Look at an emptied member for a while. True when it was seen refused, None when it was let in."""
        begin, seen_s = time.monotonic(), None
        while time.monotonic() - begin < _REFUSAL_S_MAX and (seen_s is None or time.monotonic() - seen_s < lasts_s):
            if await self._watch.is_ready(node):
                self.complaints.append(f"{node} was emptied, and was let in under its old name")
                return None
            status = await self._watch.status(node)
            if seen_s is None and status and any("replace" in (one["refused"] or "") for one in status["members"]):
                seen_s = time.monotonic()
                self.refused += 1
            await asyncio.sleep(_POLL_S)
        return seen_s is not None

    async def _until_replaced(self, node: str, dice: random.Random) -> None:
        """An answer may be lost, and the request be carried out later than the next one. It names the directory that
        it means, so none of them shuts out the machine that comes after the first."""
        end, lost = time.monotonic() + _CHANGE_S_MAX, None
        while lost is None and time.monotonic() < end:
            lost = await self._member(node)
            await asyncio.sleep(_POLL_S)
        body = {"uuid": lost["uuid"]} if lost else {}
        await self._until_asked("POST", f"members/{node}/replace", body, f"{node} was not replaced", dice)

    async def _until_asked(
        self, method: str, what: str, body: Any, complaint: str, dice: random.Random, *, gone: int = 0
    ) -> None:
        end = time.monotonic() + _CHANGE_S_MAX
        while time.monotonic() < end:
            if await self._ask(method, what, body, dice) in (200, 201, 204, gone):
                return
            await asyncio.sleep(_POLL_S)
        self.complaints.append(f"{complaint} in {_CHANGE_S_MAX:g} s")

    async def _until_it_votes(self, node: str, since: str) -> None:
        end = time.monotonic() + _CHANGE_S_MAX
        while time.monotonic() < end:
            member = await self._member(node)
            if member and member["reachable"] and member["role"] != "learner":
                return
            await asyncio.sleep(_POLL_S)
        self.complaints.append(f"{node} was {since}, and did not vote {_CHANGE_S_MAX:g} s later: {member}")

    async def _member(self, node: str) -> dict[str, Any] | None:
        """What the leader says of a member."""
        leader = await self._watch.leader()
        status = await self._watch.status(leader) if leader else None
        return next((one for one in status["members"] if one["id"] == node), None) if status else None

    async def _ask(self, method: str, what: str, body: Any, dice: random.Random) -> int | None:
        """Through any server. Status, None without an answer."""
        url = f"{self._servers.urls[self._servers.door(dice)]}/v1/cluster/{what}"
        timeout = aiohttp.ClientTimeout(total=_ASK_S_MAX, connect=1)
        headers = {"Raftfs-Timeout": f"{_ASK_S_MAX - 1:g}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, url, json=body, headers=headers) as answer,
            ):
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None
