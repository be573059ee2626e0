"""Forwarding of one request, and trying it again where that is safe.

The rules. Reads may be tried anywhere, any number of times. A write goes to the leader; it is sent again only if its
body is still here from the first byte, and, where an earlier try may have been applied, only under an idempotency key,
which is added if the client sent none. Once a try ended without an answer after its body was out, the write's outcome
is unknown until some node gives a definite answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Final, Protocol

import aiohttp
from aiohttp import web

from raftfs.errors import DeadlineExceeded, NotLeader, StorageFull, Unavailable, UnknownOutcome
from raftfs.frontend.directory import Directory
from raftfs.frontend.upstream import (
    ATTEMPT_ERRORS,
    CONNECT_ERRORS,
    Upstream,
    answer_headers,
    forward_headers,
    read_answer,
)
from raftfs.http import Call, json_response, names
from raftfs.limits import (
    BODY_IDLE_S_MAX,
    FAILOVER_S,
    INLINE_BYTES_MAX,
    READ_TRY_S,
    RETRY_PAUSE_S_MAX,
    RETRY_PAUSE_S_MIN,
    SLOW_S,
)

_LONGER: Final = 1.25  # each pause of a write that finds no leader: a new one is found little later than it is there


class Local(Protocol):
    """This node's own way of doing a write, where the forwarder is built into a node."""

    def leads(self) -> bool:
        """Whether this node leads now."""

    async def run(self) -> web.StreamResponse:
        """Do the write here, under the call's ``spare_key`` if there is one and the client sent none. NotLeader and
        Unavailable mean that it was not done."""


class Forwarder:
    """Sends calls on to the nodes of one cluster."""

    def __init__(self, directory: Directory, upstream: Upstream) -> None:
        self.directory = directory
        self.upstream = upstream

    async def write(self, call: Call, local: Local | None = None) -> web.StreamResponse:
        """Have a write done by the leader. Raises Unavailable (not applied), UnknownOutcome, IncompleteBody."""
        _check_hops(call)
        if call.has_query("forward=never") and not (local is not None and local.leads()):
            return await self._redirect(call)
        data = await call.body.buffer()
        return await _Write(self, call, data, local).run()

    async def _redirect(self, call: Call) -> web.Response:
        leader = self.directory.leader() or await self.directory.find()
        if leader is None:
            raise Unavailable("no leader is known at the moment", outcome="not_applied")
        response = json_response({"leader": leader}, status=307)
        response.headers["Location"] = leader + call.target
        response.headers[names.LEADER] = leader
        return response

    async def read(self, call: Call, *, leader_first: bool = False) -> web.StreamResponse:
        """Have a read answered by any node: the next one whenever one fails, is slow, or cannot, until the deadline.
        ``leader_first``: by the leader if there is one, who knows most of the cluster."""
        _check_hops(call)
        if leader_first and self.directory.leader() is None:
            await self.directory.find()
        tried: set[str] = set()
        last: web.StreamResponse | None = None
        reason = "no node is known"
        try_s, pause_s = READ_TRY_S, RETRY_PAUSE_S_MIN
        while True:
            node = self.directory.pick(tried, self.directory.leader() if leader_first else None)
            if node is None:
                if last is not None and last.headers.get(names.ERROR) not in ("unavailable", "not_leader"):
                    return last
                if call.remaining_s() <= pause_s:
                    break
                await asyncio.sleep(pause_s)
                tried.clear()
                try_s, pause_s = try_s * 2, min(pause_s * 2, RETRY_PAUSE_S_MAX)
                continue
            tried.add(node)
            if (left_s := call.remaining_s()) <= 0:
                break
            headers = forward_headers(call.headers, hops=call.hops(), timeout_s=left_s)
            try:
                async with asyncio.timeout(min(try_s, left_s)):
                    answer = await self.upstream.send(node, call.method, call.target, headers, None)
            except ATTEMPT_ERRORS as error:
                self.directory.failed(node)
                reason = f"{node}: {str(error) or 'no answer in time'}"
                continue
            self.directory.worked(node)
            if answer.status < 500:
                return await self._relay(call, answer)
            with contextlib.suppress(*ATTEMPT_ERRORS):
                last = await _whole(answer)
        if last is not None:
            return last
        raise Unavailable(f"no node answered in time; the last try failed with {reason}")

    async def _relay(self, call: Call, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass an answer on as it comes. One that breaks off breaks the client's connection too: never a short file."""
        try:
            size = answer.content_length
            if call.method != "HEAD" and size is not None and size <= INLINE_BYTES_MAX:
                return await _whole(answer)
            response = web.StreamResponse(status=answer.status, headers=answer_headers(answer))
            await response.prepare(call.request)
            async for piece in answer.content.iter_any():
                async with asyncio.timeout(BODY_IDLE_S_MAX):
                    await response.write(piece)
            await response.write_eof()
            return response
        except aiohttp.ClientPayloadError as error:
            raise Unavailable(f"{answer.host} broke off in the middle of its answer: {error}") from error
        except TimeoutError:
            raise Unavailable(f"the client took no byte for {BODY_IDLE_S_MAX:g} s") from None
        finally:
            answer.close()


class _Write:
    """One write on its way to a leader, over as many tries as it takes."""

    def __init__(self, forwarder: Forwarder, call: Call, data: bytes | None, local: Local | None) -> None:
        self._directory = forwarder.directory
        self._upstream = forwarder.upstream
        self._call = call
        self._data = data
        self._local = local
        self._client_key = call.headers.get(names.IDEMPOTENCY_KEY) is not None
        self._own_key = uuid.uuid4().hex if data is not None and not self._client_key else None
        self._unknown = False  # an earlier try may have been applied
        self._reason = "no leader is known"
        self._suspect: str | None = None
        self._asked: set[str] = set()  # leaders tried since the last pause

    async def run(self) -> web.StreamResponse:
        call, pause_s = self._call, RETRY_PAUSE_S_MIN
        while True:
            leader = None
            if self._local is not None and self._local.leads():
                response = await self._try_here(self._local)
            else:
                leader = self._directory.leader()
                if leader is None or leader in self._asked:
                    leader = await self._directory.find(self._suspect)
                response = None if leader is None or leader in self._asked else await self._try_node(leader)
            if response is not None:
                return response
            self._check_again()
            if leader is not None and leader not in self._asked:
                self._asked.add(leader)
                continue  # at once: the answer, or the closed connection, may have told who leads now
            if call.remaining_s() <= pause_s:
                raise self._given_up()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * _LONGER, RETRY_PAUSE_S_MAX)
            self._asked.clear()

    def _check_again(self) -> None:
        """Raise unless the write may be sent once more."""
        body = self._call.body
        if body.broken is not None:
            body.broken.outcome = "not_applied"
            raise body.broken
        if not body.replayable or (self._unknown and not (self._client_key or self._own_key)):
            raise self._given_up()
        if self._call.remaining_s() <= 0:
            raise self._given_up()

    def _given_up(self) -> Unavailable | UnknownOutcome:
        if self._unknown:
            return UnknownOutcome(f"the write may or may not have been applied: {self._reason}")
        # A body that cannot be sent again ended this try early: a new leader will be there soon.
        wait_s = 1.0 if self._call.body.replayable else FAILOVER_S
        return Unavailable(f"no leader took the write: {self._reason}", outcome="not_applied", retry_after_s=wait_s)

    async def _try_here(self, local: Local) -> web.StreamResponse | None:
        try:
            return self._cleaned(await local.run())
        except (Unavailable, StorageFull, DeadlineExceeded) as error:
            self._reason = error.detail
            if not self._worth_waiting(error.code, error.outcome) or not self._call.body.replayable:
                if self._unknown and error.outcome != "applied":  # this try did nothing, but an earlier one may have
                    raise self._given_up() from error
                raise
        except UnknownOutcome as error:
            # A write that ran without a key must not run twice.
            if not ((self._client_key or self._call.spare_key) and self._call.body.replayable):
                raise
            self._unknown, self._reason = True, error.detail
        return None

    def _worth_waiting(self, code: str | None, outcome: str | None) -> bool:
        if code == NotLeader.code:
            return True
        # With ack=all a missing member is an answer, not a passing state.
        return code == Unavailable.code and outcome != "applied" and not self._call.has_query("ack=all")

    async def _try_node(self, leader: str) -> web.StreamResponse | None:
        """The answer if it is one to give to the client; None if another try is called for, its reason noted."""
        self._suspect = leader
        try:
            answer = await self._watch(leader)
            if answer is None:
                return None
            response = await _whole(answer)
        except CONNECT_ERRORS as error:
            self._directory.failed(leader)
            self._reason = f"{leader} cannot be reached: {error}"
            return None
        except ATTEMPT_ERRORS as error:
            if self._call.body.broken is None:
                self._directory.failed(leader)
            self._note_broken(f"the connection to {leader} broke: {str(error) or type(error).__name__}")
            return None
        self._directory.worked(leader)
        return self._judge(leader, response)

    def _note_broken(self, reason: str) -> None:
        self._reason = reason
        # A leader that got only part of a body, and knows that it is part, cannot have committed it.
        if self._data is not None or self._call.body.complete:
            self._unknown = True

    def _judge(self, leader: str, response: web.Response) -> web.Response | None:
        code, outcome = response.headers.get(names.ERROR), response.headers.get(names.OUTCOME)
        if response.status == 503 and self._worth_waiting(code, outcome):
            self._directory.forget(leader)
            if (hint := response.headers.get(names.LEADER)) is not None and hint.rstrip("/") != leader:
                self._directory.hint(hint)
            self._reason = f"{leader} answered {code}"
            return None
        if code == UnknownOutcome.code and (self._client_key or self._own_key) and self._call.body.replayable:
            self._unknown, self._reason = True, f"{leader} answered {code}"
            return None
        if self._unknown and response.status in (503, 504, 507) and outcome != "applied":
            # This try did nothing, but an earlier one may have.
            raise self._given_up()
        self._cleaned(response)
        return response

    def _cleaned(self, response: web.StreamResponse) -> web.StreamResponse:
        if self._own_key is not None:
            response.headers.popall(names.REPLAYED, None)  # the repetition was ours, the client sent it once
        return response

    async def _watch(self, leader: str) -> aiohttp.ClientResponse | None:
        """Send the write and wait for its answer, asking around who leads whenever nothing moves. None if it was given
        up (noted) for another leader. Raises ATTEMPT_ERRORS."""
        task = asyncio.ensure_future(self._send(leader))
        loop, body = asyncio.get_running_loop(), self._call.body
        given_bytes, moved_s, whole_s, pause_s = body.given_bytes, loop.time(), None, SLOW_S
        try:
            while True:
                await asyncio.wait((task,), timeout=pause_s if self._data is None else min(pause_s, self._left_s()))
                now_s = loop.time()
                if task.done():
                    return task.result()
                if body.given_bytes != given_bytes or body.waiting:
                    given_bytes, moved_s, pause_s = body.given_bytes, now_s, SLOW_S
                    continue
                if self._data is None and body.complete and whole_s is None:
                    whole_s = now_s  # the deadline of a streamed write begins when its body is whole
                if self._is_over(now_s, moved_s, whole_s):
                    self._note_broken(f"{leader} did not answer in time")
                    raise self._given_up()
                pause_s = FAILOVER_S
                if await self._has_moved(leader, task):
                    self._note_broken(f"{leader} does not lead any more")
                    return None
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _is_over(self, now_s: float, moved_s: float, whole_s: float | None) -> bool:
        call = self._call
        if self._data is not None or call.body.given_bytes == 0:
            return now_s >= call.deadline
        if whole_s is not None:
            return now_s >= whole_s + call.timeout_s
        return now_s >= moved_s + BODY_IDLE_S_MAX

    async def _has_moved(self, leader: str, answer: asyncio.Future[aiohttp.ClientResponse]) -> bool:
        """Whether another one leads by now, unless the answer comes first: somebody who is frozen may hold up the
        others' word on that for longer."""
        asking = asyncio.ensure_future(self._moved_from(leader))
        try:
            await asyncio.wait((answer, asking), return_when=asyncio.FIRST_COMPLETED)
            return not answer.done() and asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _moved_from(self, leader: str) -> bool:
        if self._local is not None and self._local.leads():
            return True
        try:
            async with asyncio.timeout(SLOW_S if self._data is None else self._left_s()):
                known = await self._directory.find(leader)
        except TimeoutError:
            return False
        return known is not None and known != leader

    def _left_s(self) -> float:
        """Time to the deadline, for a wait: never so short that a loop of such waits would spin."""
        return max(0.01, self._call.remaining_s())

    async def _send(self, leader: str) -> aiohttp.ClientResponse:
        call = self._call
        stream = self._data is None
        left_s = call.timeout_s if stream else call.remaining_s()
        headers = forward_headers(call.headers, hops=call.hops(), timeout_s=left_s)
        if self._own_key is not None:
            # From here on a try of our own must be under the same key: this one may get through.
            headers[names.IDEMPOTENCY_KEY] = call.spare_key = self._own_key
        if not stream:
            return await self._upstream.send(leader, call.method, call.target, headers, self._data or None)
        if call.body.size is not None:
            headers["Content-Length"] = str(call.body.size)
        # With Expect a node that does not lead says so before the body flows, which then is still whole here.
        return await self._upstream.send(leader, call.method, call.target, headers, call.body, expect=True)


async def _whole(answer: aiohttp.ClientResponse) -> web.Response:
    """A small answer, complete before anything of it is passed on. Raises ATTEMPT_ERRORS."""
    try:
        body = await read_answer(answer)
    finally:
        answer.close()
    headers = answer_headers(answer)
    if answer.method != "HEAD":
        headers.popall("Content-Length", None)
        return web.Response(body=body, status=answer.status, headers=headers)
    return web.Response(status=answer.status, headers=headers)


def _check_hops(call: Call) -> None:
    if call.hops() >= names.HOPS_MAX:
        raise Unavailable("the request went through too many forwarders: they forward to each other in a circle",
                          outcome="not_applied")  # fmt: skip
