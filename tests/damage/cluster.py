"""Real nodes in this process, on directories that are put back and damaged, and what was acknowledged through them."""

from __future__ import annotations

import asyncio
import io
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from raftfs.config import NodeConfig, RaftTimes
from raftfs.errors import ConfigError, CorruptData
from raftfs.service.node import Node

NAMES = ("n1", "n2", "n3")
CONVERGE_S_MAX = 60.0
NOBODY = 0
"""Instead of a status: there was no answer, or it was broken off and is known not to be whole."""

_TIMES = RaftTimes(heartbeat_ms=20, election_timeout_ms_min=150, election_timeout_ms_max=300)
_SETTINGS: dict[str, Any] = {
    "journal_segment_bytes": 48 * 1024,
    "journal_segments_kept": 3,
    "backfill_period_s": 0.2,
    "request_deadline_s": 10.0,
}


class Refused(Exception):
    """The node would not start, or stopped: its words."""


@dataclass
class Ledger:
    """``acknowledged``: path to the bytes that are there. ``ever``: all that was ever sent for a path."""

    acknowledged: dict[str, bytes] = field(default_factory=dict)
    ever: dict[str, list[bytes]] = field(default_factory=dict)

    def possible(self, path: str) -> list[bytes]:
        """What may be there now: the last that was acknowledged, or something sent later whose outcome is unknown."""
        sent = self.ever[path]
        return sent[len(sent) - 1 - sent[::-1].index(self.acknowledged[path]) :]

    def copy(self) -> Ledger:
        return Ledger(dict(self.acknowledged), {path: list(sent) for path, sent in self.ever.items()})


class Nodes:
    """Up to three nodes; ``urls`` of those that run."""

    def __init__(self, folder: Path, port: int, node: type[Node] = Node) -> None:
        self.folder, self._node = folder, node
        ports = [
            *range(port + 11, port + 14),
            *range(port + 1, port + 4),
        ]  # always the same: the members' addresses are in their logs
        self._members = [
            {"id": name, "peer": f"127.0.0.1:{ports[i]}", "url": f"http://127.0.0.1:{ports[i + len(NAMES)]}"}
            for i, name in enumerate(NAMES)
        ]
        self._running: dict[str, AsyncExitStack] = {}
        self._nodes: dict[str, Node] = {}
        self.http: aiohttp.ClientSession

    def data_dir(self, name: str) -> Path:
        return self.folder / name

    @property
    def urls(self) -> dict[str, str]:
        return {member["id"]: member["url"] for member in self._members if member["id"] in self._running}

    async def start(self, name: str) -> None:
        """Raises Refused if it will not."""
        config = NodeConfig(
            id=name,
            cluster_id="damaged",
            data_dir=self.data_dir(name),
            members=self._members,
            times=_TIMES,
            **_SETTINGS,
        )  # type: ignore[arg-type]
        stack = AsyncExitStack()
        try:
            self._nodes[name] = await stack.enter_async_context(self._node(config))
        except (CorruptData, ConfigError) as error:
            raise Refused(error.detail) from error
        self._running[name] = stack

    async def stop(self, *names: str) -> None:
        for name in names:
            stack = self._running.pop(name, None)
            if stack is not None:
                del self._nodes[name]
                await stack.aclose()

    def ended(self, name: str) -> str | None:
        """Why a node that was started has stopped by itself."""
        life = self._nodes[name]._life
        return str(life.result()) if life.done() and not life.cancelled() else None

    async def put(self, name: str, path: str, data: bytes, ledger: Ledger, key: str) -> bool:
        """Whether it was acknowledged."""
        ledger.ever.setdefault(path, []).append(data)
        try:
            async with self.http.put(
                f"{self.urls[name]}/v1/files{path}?parents=true",
                data=io.BytesIO(data),
                headers={"Idempotency-Key": key},
            ) as answer:
                await answer.read()
                assert answer.status in (200, 201, 503, 504), (answer.status, await answer.text())
                if answer.status in (200, 201):
                    ledger.acknowledged[path] = data
                return answer.status in (200, 201)
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def get(self, name: str, path: str, consistency: str) -> bytes | int:
        """The bytes, or the status of a refusal."""
        url = f"{self.urls[name]}/v1/files{path}?consistency={consistency}"
        try:
            async with self.http.get(url) as answer:
                data = await answer.read()
                return data if answer.status == 200 else answer.status
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            return NOBODY

    async def status(self, name: str) -> dict[str, Any]:
        """The cluster as one node sees it; empty while it begins anew on a snapshot."""
        try:
            async with self.http.get(f"{self.urls[name]}/v1/cluster") as answer:
                found: dict[str, Any] = await answer.json()
                return found
        except aiohttp.ClientConnectionError:
            return {}

    async def level(self, *names: str) -> None:
        """Wait until all of them have applied the same and lack no chunk; then their states must be one. Raises Refused
        if one of them stops meanwhile, AssertionError if it does not come to that."""
        seen: dict[str, Any] = {}
        try:
            async with asyncio.timeout(CONVERGE_S_MAX):
                while True:
                    for name in names:
                        if (why := self.ended(name)) is not None:
                            raise Refused(why)
                    seen = {name: await self.status(name) for name in names}
                    if self._are_level(names, seen):
                        return
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"not level after {CONVERGE_S_MAX:g} s: {seen}") from None

    @staticmethod
    def _are_level(names: tuple[str, ...], seen: dict[str, Any]) -> bool:
        if not all(seen.values()) or len({view["applied_index"] for view in seen.values()}) > 1:
            return False
        hashes = {name: view["state_hash"] for name, view in seen.items()}
        assert len(set(hashes.values())) == 1, f"the states differ: {hashes}"
        return all(
            member["missing_chunks"] == 0 and member["id"] in names
            for name, view in seen.items()
            for member in view["members"]
            if member["id"] == name
        ) and all(view["quorum"] for view in seen.values())


@asynccontextmanager
async def nodes(folder: Path, port: int, node: type[Node] = Node) -> AsyncIterator[Nodes]:
    group = Nodes(folder, port, node)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as group.http:
        try:
            yield group
        finally:
            await group.stop(*NAMES)


def restore(images: Path, group: Nodes, *names: str) -> None:
    for name in names:
        shutil.rmtree(group.data_dir(name), ignore_errors=True)
        shutil.copytree(images / name, group.data_dir(name))


async def fill(group: Nodes, ledger: Ledger, dice: random.Random, *, writes: int, through: str, tag: str) -> None:
    """Small files that are replaced, and some of several chunks."""
    for number in range(writes):
        size = dice.choice((0, 10, 200, 200, 3000, 30_000))
        path = f"/d{number % 5}/f{dice.randrange(40)}"
        await group.put(through, path, f"{tag} {number} ".encode() + dice.randbytes(size), ledger, f"{tag}-{number}")


async def fill_large(group: Nodes, ledger: Ledger, dice: random.Random, *, through: str) -> None:
    for number, size in enumerate((40_000, 5_000_000)):
        assert await group.put(through, f"/large/{number}", dice.randbytes(size), ledger, f"large-{number}")
