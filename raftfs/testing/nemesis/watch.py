"""Looking at the servers from outside: who leads, who is ready, whether equal logs made equal states, whether a node
forgot its term, and whether a term had two leaders."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import aiohttp

from raftfs.testing.nemesis.clock import can_be_seen, seems
from raftfs.testing.nemesis.doors import Targets

_ASK_S_MAX: Final = 2.0
_POLL_S: Final = 0.2
_WATCH_S: Final = 1.0
_QUIET_S: Final = 3.0
_QUIET_TRIES: Final = 8


class Watched(Targets, Protocol):
    """``nodes``: the members now. ``emptied``: how often each lost its data."""

    @property
    def nodes(self) -> Sequence[str]: ...

    @property
    def emptied(self) -> Mapping[str, int]: ...

    def clock(self, name: str) -> int:
        """By how many seconds a node's wall clock is ahead."""
        ...


class Watch:
    """``odd``: complaints about states that differ at one applied index, about terms that go back, and about second
    leaders."""

    def __init__(self, servers: Watched) -> None:
        self._servers = servers
        self._hashes: dict[int, tuple[str, str]] = {}
        self._told: dict[tuple[str, int], int] = {}
        self._led: dict[int, str] = {}
        self.odd: list[str] = []
        self.compared = 0
        self.terms: set[int] = set()
        self._asking = asyncio.Lock()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ASK_S_MAX))

    async def close(self) -> None:
        await self._session.close()

    async def run(self) -> None:
        """Compare states again and again, until cancelled."""
        while True:
            await self.statuses()
            await asyncio.sleep(_WATCH_S)

    async def leader(self) -> str | None:
        """The leader of the newest term that any node knows."""
        known = [(one["term"], one["leader"]["id"]) for one in (await self.statuses()).values() if one["leader"]]
        return max(known)[1] if known else None

    async def statuses(self) -> dict[str, dict[str, Any]]:
        """The status of each member that answers."""
        async with self._asking:  # answers to two rounds at once could come in any order
            lives = {node: self._servers.emptied[node] for node in self._servers.nodes}
            answers = await asyncio.gather(*map(self.status, lives))
        found = {node: answer for node, answer in zip(lives, answers, strict=True) if answer is not None}
        for node, answer in found.items():
            self.terms.add(answer["term"])
            self._compare(node, answer["applied_index"], answer["state_hash"])
            if lives[node] == self._servers.emptied[node]:
                leads = answer["leader"] is not None and answer["leader"]["id"] == node
                self._check_term(node, lives[node], answer["term"], leads=leads)
        return found

    def told(self, node: str) -> int:
        """The highest term in which a node has said to be, since it was emptied last; -1 if it never said any."""
        return self._told.get((node, self._servers.emptied[node]), -1)

    def _check_term(self, node: str, life: int, term: int, *, leads: bool) -> None:
        """A node that was emptied begins a new life."""
        if term < (told := self._told.get((node, life), 0)):
            self.odd.append(f"{node} was in term {told}, and is in term {term} now: it could vote twice in a term")
        self._told[node, life] = term
        if leads and (first := self._led.setdefault(term, node)) != node:
            self.odd.append(f"term {term} has two leaders, {first} and {node}")

    def _compare(self, node: str, index: int, state_hash: str) -> None:
        first, known = self._hashes.setdefault(index, (node, state_hash))
        if first != node:
            self.compared += 1
        if known != state_hash:
            self.odd.append(f"at applied index {index}, {first} has state {known[:16]}, {node} has {state_hash[:16]}")

    async def ready(self, name: str, timeout_s: float) -> bool:
        """Wait until a server says that it serves. False if it does not in time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if await self.is_ready(name):
                return True
            await asyncio.sleep(_POLL_S)
        return False

    async def settled(self, timeout_s: float) -> list[str]:
        """Wait until the members are those of the beginning, each with a vote, all have applied the same, to the same
        state, and miss no chunk. Complaints if they do not; nobody may be writing."""
        first, end = sorted(self._servers.first), time.monotonic() + timeout_s
        while True:
            found = await self.statuses()
            members = {node: _members(one) for node, one in found.items()}
            states = {node: (one["applied_index"], one["state_hash"]) for node, one in found.items()}
            missing = {node: own["missing_chunks"] for node, one in found.items() if (own := _own(one, node))}
            equal = len(set(states.values())) == 1 and all(one == first for one in members.values())
            if sorted(missing) == first and equal and not any(missing.values()):
                return []
            if time.monotonic() > end:
                return [
                    f"{timeout_s:g} s after the faults the nodes differ or lack something: "
                    f"members that vote {members}, states {states}, missing chunks {missing}"
                ]
            await asyncio.sleep(_POLL_S)

    async def quiet(self) -> list[str]:
        """Nobody calls elections when nothing happens, nor does one that was removed and runs on."""
        for _ in range(_QUIET_TRIES):
            before = await self._term()
            await asyncio.sleep(_QUIET_S)
            if before is not None and before == await self._term():
                return []
        return [f"terms go on rising after the faults: none lasted {_QUIET_S:g} s in {_QUIET_TRIES} tries"]

    async def _term(self) -> int | None:
        return max((one["term"] for one in (await self.statuses()).values()), default=None)

    async def status(self, node: str) -> dict[str, Any] | None:
        """What a node says of the cluster; None if it does not answer."""
        try:
            async with self._session.get(f"{self._servers.urls[node]}/v1/cluster", ssl=self._servers.tls) as answer:
                if answer.status != 200:
                    return None
                value: dict[str, Any] = await answer.json()
                return value
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def is_ready(self, name: str) -> bool:
        """Whether a server says that it serves."""
        try:
            async with self._session.get(f"{self._servers.urls[name]}/readyz", ssl=self._servers.tls) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def clock_is_right(self, node: str) -> bool | None:
        """Whether a node's wall clock is as far off as it was told. None if that cannot be told from outside."""
        ahead_s = self._servers.clock(node)
        if not can_be_seen(ahead_s):
            return None
        try:
            async with self._session.get(f"{self._servers.urls[node]}/livez", ssl=self._servers.tls) as answer:
                if ahead_s == self._servers.clock(node):
                    return seems(answer.headers, ahead_s)
        except (aiohttp.ClientError, TimeoutError):
            pass
        return None


def _own(status: dict[str, Any], node: str) -> dict[str, Any] | None:
    return next((member for member in status["members"] if member["id"] == node), None)


def _members(status: dict[str, Any]) -> list[str]:
    """Those that vote; one that does not is marked."""
    return sorted(one["id"] + ("?" if one["role"] == "learner" else "") for one in status["members"])
