"""Who the nodes are, which of them leads, and which are worth asking.

Knowledge comes from the configuration, from ``/v1/cluster/leader`` of the nodes, and from hints in their answers. All
of it may be old; whoever uses it reports back what failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from raftfs.config import in_the_clear
from raftfs.decoding import UNDECODABLE
from raftfs.errors import Unavailable
from raftfs.frontend.upstream import ATTEMPT_ERRORS, Upstream
from raftfs.limits import NODE_REST_S_MAX, NODE_REST_S_MIN, NODES_KNOWN_MAX, PROBE_S_MAX, RECOVERY_TERMS, ROUNDS_S_MIN
from raftfs.models import LeaderRef

log = logging.getLogger(__name__)

LEADER_TARGET: Final = "/v1/cluster/leader"


class _Ref(msgspec.Struct):
    id: str
    url: str


class LeaderAnswer(msgspec.Struct):
    """``/v1/cluster/leader``: who leads as ``node`` sees it, in which term, and who the members are."""

    leader: _Ref | None
    term: int
    node: str
    members: list[_Ref] = []


_decode = msgspec.json.Decoder(LeaderAnswer).decode


@dataclass
class _Node:
    rest_until_s: float = 0.0
    rest_s: float = NODE_REST_S_MIN


class Directory:
    """The nodes of one cluster as seen from here. ``me``: this node's own URL, which is never asked or chosen.
    ``local``: what this node itself knows of the leader, ``term``: its term. ``secure``: whoever says that a node is to
    be reached without TLS, beyond this machine, is not believed.

    A leader whose term lies far behind one that was seen is one of the cluster as it was before a recovery, and is
    never believed: what it acknowledges would be lost to this one."""

    def __init__(
        self,
        upstream: Upstream,
        nodes: Iterable[str],
        *,
        me: str | None = None,
        local: Callable[[], LeaderRef | None] | None = None,
        term: Callable[[], int] = lambda: 0,
        secure: bool = False,
    ) -> None:
        self._upstream = upstream
        self._me = me.rstrip("/") if me else None
        self._local = local
        self._own_term = term
        self._secure = secure
        self._newest_term = 0
        self._nodes: dict[str, _Node] = {}
        self._leader: str | None = None
        self._term = -1
        self._turn = 0
        self._round: asyncio.Task[str | None] | None = None
        self._next_round_s = float("-inf")
        for url in nodes:
            self._add(url)

    def _add(self, url: str) -> str:
        url = url.rstrip("/")
        if url != self._me and url not in self._nodes and len(self._nodes) < NODES_KNOWN_MAX:
            self._nodes[url] = _Node()
        return url

    def _usable(self, url: str) -> bool:
        return url.startswith(("http://", "https://")) and not (self._secure and in_the_clear(url))

    @property
    def nodes(self) -> list[str]:
        return list(self._nodes)

    def leader(self) -> str | None:
        """URL of the leader as last heard, None if nobody is known to lead (or this node itself does)."""
        if self._local is not None:
            known = self._local()
            if (
                known is not None and (url := known.url.rstrip("/")) != self._me and self._usable(url)
                and not self._resting(url)
            ):  # fmt: skip
                return self._add(url)
        return self._leader

    def hint(self, url: str) -> None:
        """A node says that ``url`` leads."""
        if not self._usable(url) or (url := url.rstrip("/")) == self._me:
            return
        self._leader = self._add(url)

    def forget(self, url: str) -> None:
        """``url`` does not lead, or does not answer as a leader should."""
        if self._leader == url:
            self._leader = None

    def failed(self, url: str) -> None:
        """``url`` could not be reached: leave it alone for a moment."""
        self.forget(url)
        node = self._nodes.get(url)
        if node is not None:
            node.rest_until_s = asyncio.get_running_loop().time() + node.rest_s
            node.rest_s = min(node.rest_s * 2, NODE_REST_S_MAX)

    def worked(self, url: str) -> None:
        """``url`` answered."""
        node = self._nodes.get(url)
        if node is not None and node.rest_until_s:
            node.rest_until_s, node.rest_s = 0.0, NODE_REST_S_MIN

    def _resting(self, url: str) -> bool:
        node = self._nodes.get(url)
        return node is not None and node.rest_until_s > asyncio.get_running_loop().time()

    def pick(self, tried: set[str], first: str | None = None) -> str | None:
        """A node to read from that is not in ``tried``: ``first`` if given, otherwise each in its turn, those that
        failed lately last. None if all were tried."""
        if first is not None and first not in tried and not self._resting(first):
            return first
        candidates = [url for url in self._nodes if url not in tried]
        if not candidates:
            return None
        self._turn += 1
        rested = [url for url in candidates if not self._resting(url)] or candidates
        return rested[self._turn % len(rested)]

    async def find(self, suspect: str | None = None) -> str | None:
        """Ask all nodes once who leads; callers at the same time share one round, and rounds do not follow each other
        faster than ROUNDS_S_MIN, however many there are who ask. ``suspect`` just failed as a leader and is believed
        only if nobody else claims to lead. None if nobody knows a leader that answers."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._ask_in_turn(suspect))
        # Shielded, because the others who wait for the same round must not lose it with the first one cancelled.
        return await asyncio.shield(self._round)

    async def close(self) -> None:
        if self._round is not None and not self._round.done():
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    async def _ask_in_turn(self, suspect: str | None) -> str | None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next_round_s - loop.time())
        self._next_round_s = loop.time() + ROUNDS_S_MIN
        return await self._ask_all(suspect)

    async def _ask_all(self, suspect: str | None) -> str | None:
        tasks = {asyncio.create_task(self._ask(url)): url for url in self._nodes}
        pending = set(tasks)
        hearsay: dict[str, int] = {}
        claims: dict[str, int] = {}
        silent: set[str] = set()
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    answer = task.result()
                    if answer is None:
                        silent.add(tasks[task])
                        continue
                    self._newest_term = max(self._newest_term, answer.term)
                    if answer.leader is not None and self._usable(answer.leader.url):
                        url = answer.leader.url.rstrip("/")
                        into = claims if answer.leader.id == answer.node else hearsay
                        into[url] = max(answer.term, into.get(url, -1))
                best = self._best(claims, without={suspect} if pending else set())
                if best is not None and claims[best] >= self._term:
                    return self._elect(best, claims[best])
                if len(silent) < len(tasks) - len(pending) and {tasks[task] for task in pending} == {suspect}:
                    break  # the others have said what they know; the one that fails is not worth the wait
        finally:
            for task in pending:
                task.cancel()
        for source, without in ((claims, set[str | None]()), (hearsay, {*silent, self._me})):
            best = self._best(source, without=without)
            if best is not None:
                return self._elect(best, source[best])
        self._leader = None
        return None

    def _best(self, claims: dict[str, int], without: set[str | None]) -> str | None:
        """The leader with the highest term."""
        oldest = max(self._newest_term, self._own_term()) - RECOVERY_TERMS // 2
        usable = {url: term for url, term in claims.items() if url not in without and term > oldest}
        return max(usable, key=lambda url: usable[url]) if usable else None

    def _elect(self, url: str, term: int) -> str:
        self._leader, self._term = self._add(url), term
        return self._leader

    async def _ask(self, url: str) -> LeaderAnswer | None:
        try:
            answer = _decode(await self._upstream.ask(url, LEADER_TARGET, timeout_s=PROBE_S_MAX))
        except (*ATTEMPT_ERRORS, Unavailable, *UNDECODABLE) as error:
            log.debug("%s did not say who leads: %s", url, error)
            return None
        for member in answer.members:
            if self._usable(member.url):
                self._add(member.url)
        return answer
