"""Looking at the servers from outside: who leads, who is ready, whether equal logs made equal states, whether a node
forgot its term, and whether a term had two leaders."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

import aiohttp

_ASK_S_MAX: Final = 2.0
_POLL_S: Final = 0.2
_WATCH_S: Final = 1.0


class Watch:
    """``nodes`` and ``frontend``: URLs. ``odd``: complaints about states that differ at one applied index, about terms
    that go back, and about second leaders."""

    def __init__(self, nodes: dict[str, str], frontend: str) -> None:
        self._nodes, self._frontend = nodes, frontend
        self._hashes: dict[int, tuple[str, str]] = {}
        self.told: dict[str, int] = {}
        """the highest term in which each node has said to be"""
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
        """The status of each node that answers."""
        async with self._asking:  # answers to two rounds at once could come in any order
            answers = await asyncio.gather(*(self._get(url + "/v1/cluster") for url in self._nodes.values()))
        found = {node: answer for node, answer in zip(self._nodes, answers, strict=True) if answer is not None}
        for node, answer in found.items():
            self.terms.add(answer["term"])
            self._compare(node, answer["applied_index"], answer["state_hash"])
            self._check_term(
                node, answer["term"], leads=answer["leader"] is not None and answer["leader"]["id"] == node
            )
        return found

    def _check_term(self, node: str, term: int, *, leads: bool) -> None:
        if term < (told := self.told.get(node, 0)):
            self.odd.append(f"{node} was in term {told}, and is in term {term} now: it could vote twice in a term")
        self.told[node] = term
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
        url = self._nodes.get(name, self._frontend)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if await self._is_ready(url):
                return True
            await asyncio.sleep(_POLL_S)
        return False

    async def settled(self, timeout_s: float) -> list[str]:
        """Wait until all nodes have applied the same, to the same state, and miss no chunk. Complaints if they do not;
        nobody may be writing."""
        end = time.monotonic() + timeout_s
        while True:
            found = await self.statuses()
            states = {node: (one["applied_index"], one["state_hash"]) for node, one in found.items()}
            missing = {node: _own(one, node)["missing_chunks"] for node, one in found.items()}
            if len(found) == len(self._nodes) and len(set(states.values())) == 1 and not any(missing.values()):
                return []
            if time.monotonic() > end:
                return [f"nodes differ {timeout_s:g} s after the faults: {states}, missing chunks {missing}"]
            await asyncio.sleep(_POLL_S)

    async def _get(self, url: str) -> dict[str, Any] | None:
        try:
            async with self._session.get(url) as answer:
                if answer.status != 200:
                    return None
                value: dict[str, Any] = await answer.json()
                return value
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def _is_ready(self, url: str) -> bool:
        try:
            async with self._session.get(url + "/readyz") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


def _own(status: dict[str, Any], node: str) -> dict[str, Any]:
    return next(member for member in status["members"] if member["id"] == node)
