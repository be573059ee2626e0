"""One request until it is answered: endpoints in turn, attempts, deadlines, and what a failure means.

A request comes in as data (``Request``); out comes what ``consume`` made of the answer, or one of raftfs's errors with
its outcome. A write goes out with one idempotency key in all its attempts, so that a second attempt finds the outcome
of the first instead of repeating it. What may never happen here: a write sent twice without a key, or a body sent
again from its middle.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType
from yarl import URL

from raftfs import limits
from raftfs.client import answers
from raftfs.client.body import Body, BytesBody
from raftfs.client.options import Options
from raftfs.client.retry import Budget, Failure, Retries
from raftfs.errors import (
    BadAnswer,
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    NotTrusted,
    Outcome,
    RaftfsError,
    Unavailable,
    UnknownOutcome,
)
from raftfs.tls import client_context, explain, refused_by_server

T = TypeVar("T")
Moved = Callable[[int], None]
"""Called with the bytes of this attempt that were handed to the network so far."""

_RETRIED = (Unavailable, DeadlineExceeded, UnknownOutcome)
_abandoned: list[aiohttp.ClientSession] = []
"""Sessions of a parent process. They are kept, not closed: closing would act on sockets the parent still uses."""


@dataclass(frozen=True, slots=True)
class Request:
    """``target`` is an encoded path below the endpoint. ``transfer``: without a timeout it may last while it moves."""

    method: str
    target: str
    expect: frozenset[int]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    mutation: bool = False
    transfer: bool = False
    timeout_s: float | None = None
    moved: Moved | None = None

    def url(self, endpoint: str) -> URL:
        query = f"?{urlencode(self.query)}" if self.query else ""
        return URL(f"{endpoint}{self.target}{query}", encoded=True)


class _ConnectionLost(aiohttp.ClientError):
    """Hides a lost connection from aiohttp, which would otherwise send a PUT again on its own, without its head."""


async def _no_hidden_retry(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _ConnectionLost(str(error) or type(error).__name__) from error


class Watchdog:
    """Cancels the attempt when nothing moved for ``idle_s``, or the call's time is over. May outlive the attempt."""

    def __init__(self, idle_s: float, budget: Budget) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._budget = budget
        self._timeout = asyncio.timeout_at(None)
        self._active = False

    async def __aenter__(self) -> Watchdog:
        await self._timeout.__aenter__()
        self._active = True
        # To begin is no movement: a transfer to servers that are down would go on for ever.
        self._set(min(self._loop.time() + self._idle_s, self._budget.end_s))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._active = False
        await self._timeout.__aexit__(*exc)  # type: ignore[arg-type]

    def moved(self) -> None:
        now_s = self._loop.time()
        self._budget.moved(now_s)
        self._set(min(now_s + self._idle_s, self._budget.end_s))

    def producer_works(self) -> None:
        """The next bytes are the caller's turn: a slow producer is not a dead server. A fixed end stands."""
        self._set(self._budget.end_s if self._budget.fixed else None)

    def _set(self, when_s: float | None) -> None:
        if self._active and not self._timeout.expired():
            self._timeout.reschedule(when_s)


class Sending:
    """The body of one attempt, as aiohttp pulls it. Knows afterwards whether all of it was handed over, and what
    the producer raised. A body that is longer or shorter than announced is an error, never a truncated file."""

    def __init__(self, body: Body, watchdog: Watchdog, moved: Moved | None) -> None:
        self._body = body
        self._watchdog = watchdog
        self._moved = moved
        self._started = False
        self.sent_bytes = 0
        self.complete = False
        self.error: Exception | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._started:
            raise RuntimeError("one attempt sends its body once")
        self._started = True
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        sent = 0
        try:
            self._watchdog.producer_works()
            async for chunk in self._body.chunks():
                self._check(sent + len(chunk), at_end=False)
                sent = self.sent_bytes = sent + len(chunk)
                # From here on the server may have it all: it does not wait for us to notice the end.
                self.complete = sent == self._body.size
                self._watchdog.moved()
                if self._moved is not None:
                    self._moved(sent)
                yield chunk
                self._watchdog.moved()
                self._watchdog.producer_works()
            self._check(sent, at_end=True)
            self._watchdog.moved()
        except Exception as error:
            self.error = error
            raise
        self.complete = True

    def _check(self, length: int, *, at_end: bool) -> None:
        size = self._body.size
        if size is not None and (length != size if at_end else length > size):
            raise InvalidRequest(
                f"the body was announced as {size} bytes and has {'' if at_end else 'at least '}{length}",
                outcome="not_applied",
            )


class Transport:
    """Confined to one event loop at a time; a new process or a new loop gets a new session by itself."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._rng = random.Random()
        self._preferred = 0
        self._session: aiohttp.ClientSession | None = None
        self._owner: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._closed = False
        self._tls: ssl.SSLContext | None = None

    async def send(self, request: Request, consume: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
        """Send until there is an answer among ``request.expect``, and return what ``consume`` makes of it.

        Raises the error of the server's problem; Unavailable, DeadlineExceeded or UnknownOutcome when time is over;
        BadAnswer; or what the body's producer raised.
        """
        loop = asyncio.get_running_loop()
        options = self.options
        total_s = request.timeout_s
        if total_s is None and not request.transfer:
            total_s = options.deadline_s
        if total_s is not None and not total_s > 0:
            raise InvalidRequest(f"timeout must be above zero, not {total_s!r}")
        budget = Budget(total_s=total_s, idle_s=options.deadline_s, now_s=loop.time())
        retries = Retries(mutation=request.mutation, endpoints=len(options.endpoints), rng=self._rng)
        headers = self._headers(request)
        last: Failure | None = None
        while budget.left_s(loop.time()) > 0:
            index = self._preferred
            try:
                return await self._attempt(request, headers, options.endpoints[index], budget, consume)
            except _AttemptFailed as failed:
                last = failed.failure
                cause = failed.__cause__
            except Exception as error:  # the body's producer failed; what it says is about this attempt alone
                if retries.maybe_applied:
                    raise UnknownOutcome(f"whether the write was applied is not known, and: {error}") from error
                raise
            retries.failed(last)
            delay_s = retries.delay_s()
            can_retry = last.retry and (request.body is None or request.body.can_start) and not retries.exhausted
            if not can_retry or delay_s >= budget.left_s(loop.time()):
                raise retries.verdict(last) from cause
            if self._preferred == index:  # unless another call moved on already
                self._preferred = (index + 1) % len(options.endpoints)
            await asyncio.sleep(delay_s)
        late = DeadlineExceeded("the deadline passed before the request was sent")
        raise retries.verdict(last or Failure(late, retry=True, maybe_applied=False))

    @staticmethod
    def _headers(request: Request) -> dict[str, str]:
        # Bytes are stored as they are sent: a compressed answer would break ranges and lengths.
        headers = {"Accept-Encoding": "identity", **request.headers}
        if request.mutation:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        if request.body is not None:
            headers.setdefault("Content-Type", "application/octet-stream")
            if request.body.size is not None:
                headers["Content-Length"] = str(request.body.size)
        return headers

    async def _attempt(
        self,
        request: Request,
        headers: Mapping[str, str],
        endpoint: str,
        budget: Budget,
        consume: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        watchdog = Watchdog(self.options.attempt_s, budget)
        sending = None
        data: bytes | Sending | None = None
        if isinstance(request.body, BytesBody) and len(request.body.data) <= limits.BUFFERED_BODY_BYTES_MAX:
            data = request.body.data
        elif request.body is not None:
            data = sending = Sending(request.body, watchdog, request.moved)
        if not request.transfer or request.timeout_s is not None:
            headers = {**headers, "Raftfs-Timeout": self._server_time(budget)}
        try:
            async with watchdog:
                session = self.session()
                response = await session.request(
                    request.method, request.url(endpoint), headers=headers, data=data, allow_redirects=False,
                    ssl=self._context(endpoint),
                )  # fmt: skip
                try:
                    if response.status not in request.expect:
                        raise await _answered(response, endpoint)
                    result = await consume(response)
                except BaseException:
                    response.close()
                    raise
        except RaftfsError as error:
            self._raise_own(sending)
            raise _AttemptFailed(_judge_answer(error, request, sending)) from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            self._raise_own(sending)
            failure = _judge_loss(error, sending, endpoint, request.mutation)
            if isinstance(failure.error, NotTrusted):
                self._tls = None  # the files may have been renewed since they were read
            raise _AttemptFailed(failure) from error
        if data is not None and sending is None and request.moved is not None:
            request.moved(len(data))  # type: ignore[arg-type]
        return result

    def _context(self, endpoint: str) -> ssl.SSLContext | bool:
        """For an https endpoint, made from the files when it is first needed. ConfigError if they cannot be used."""
        if not endpoint.startswith("https://"):
            return True
        if self._tls is None:
            names = (self.options.ca, self.options.cert, self.options.key)
            files = [None if name is None else Path(name) for name in names]
            try:
                self._tls = client_context(*files)
            except OSError as error:  # ssl.SSLError is one, too
                named = ", ".join(str(path) for path in files if path is not None)
                raise ConfigError(f"certificate files cannot be used: {error}; check {named}") from error
        return self._tls

    @staticmethod
    def _raise_own(sending: Sending | None) -> None:
        """What went wrong was the body's own producer: its error is the caller's, as it is."""
        if sending is not None and sending.error is not None:
            raise sending.error

    def _server_time(self, budget: Budget) -> str:
        """Seconds for the server: a little less than we wait, so that its answer is still in time."""
        left_s = min(budget.left_s(asyncio.get_running_loop().time()), self.options.attempt_s)
        return f"{max(0.05, left_s - min(0.5, left_s / 10)):.3f}"

    def session(self) -> aiohttp.ClientSession:
        """The session of this process and loop. Raises RuntimeError after ``aclose``, or in a second live loop."""
        if self._closed:
            raise RuntimeError("this raftfs client is closed; connect again")
        owner = (os.getpid(), asyncio.get_running_loop())
        if self._session is not None and self._owner is not None and self._owner != owner:
            if self._owner[0] == owner[0] and not self._owner[1].is_closed():
                raise RuntimeError("this raftfs client belongs to another event loop that is still open")
            _abandoned.append(self._session)
            self._session = None
        if self._session is None:
            self._session = self._new_session()
            self._owner = owner
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limits.CLIENT_CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.options.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=limits.CLIENT_BLOCK_BYTES,
            max_line_size=limits.HEADER_LINE_BYTES_MAX,
            max_field_size=limits.ANSWER_HEADER_LINE_BYTES_MAX,
            headers={"User-Agent": "raftfs-python"},
            middlewares=(_no_hidden_retry,),
        )

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice, and in a child process, where it leaves the parent's alone."""
        self._closed = True
        session, self._session = self._session, None
        if session is None or self._owner is None:
            return
        if self._owner != (os.getpid(), asyncio.get_running_loop()):
            _abandoned.append(session)
            return
        await session.close()


class _AttemptFailed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error.detail)
        self.failure = failure


async def _answered(response: aiohttp.ClientResponse, endpoint: str) -> RaftfsError:
    if response.method == "HEAD":  # no body says what it is about, so the whole URL has to
        return answers.error_of(response.status, response.headers, b"", response.url.human_repr())
    return answers.error_of(response.status, response.headers, await read_answer(response), endpoint)


async def read_answer(response: aiohttp.ClientResponse) -> bytes:
    """A whole answer, bounded. Raises BadAnswer when it is too long."""
    pieces: list[bytes] = []
    length = 0
    async for piece in response.content.iter_any():
        length += len(piece)
        if length > limits.CLIENT_ANSWER_BYTES_MAX:
            raise BadAnswer(f"{response.url} answered with more than {limits.CLIENT_ANSWER_BYTES_MAX} bytes")
        pieces.append(piece)
    response.release()
    return b"".join(pieces)


def _judge_answer(error: RaftfsError, request: Request, sending: Sending | None) -> Failure:
    """A problem that the server sent, or an answer that makes no sense."""
    retry = isinstance(error, _RETRIED)
    if isinstance(error, BadAnswer) and request.mutation:
        error.outcome = error.outcome or "unknown"
    maybe_applied = request.mutation and error.outcome != "not_applied"
    return Failure(error, retry, maybe_applied, sending.sent_bytes if sending else 0)


def _judge_loss(error: Exception, sending: Sending | None, endpoint: str, mutation: bool) -> Failure:
    """No (whole) answer. Nothing was applied if there was no connection, or if the body was not all sent."""
    not_connected = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
    half_sent = sending is not None and not sending.complete
    maybe_applied = mutation and not (not_connected or half_sent)
    sent_bytes = sending.sent_bytes if sending else 0
    if isinstance(error, aiohttp.ClientResponseError):
        why = f"{endpoint} does not answer in HTTP as expected: {error.message or error}"
        outcome: Outcome | None = None if not mutation else "unknown" if maybe_applied else "not_applied"
        return Failure(BadAnswer(why, outcome=outcome), retry=False, maybe_applied=maybe_applied)
    found: RaftfsError
    distrust = explain(error) if endpoint.startswith("https://") else None
    if distrust is not None and (not_connected or refused_by_server(error)):
        return Failure(NotTrusted(f"cannot reach {endpoint}: {distrust}"), retry=True, maybe_applied=False)
    if isinstance(error, TimeoutError) and not not_connected:
        found = DeadlineExceeded(f"{endpoint} did not answer in time")
    elif not_connected:
        found = Unavailable(f"cannot reach {endpoint}: {error}")
    else:
        found = Unavailable(f"lost the connection to {endpoint}: {error}")
    return Failure(found, retry=True, maybe_applied=maybe_applied, sent_bytes=sent_bytes)
