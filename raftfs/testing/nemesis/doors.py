"""One operation of a client: a request, its retries through other servers, and what is known of it in the end."""

from __future__ import annotations

import asyncio
import io
import json
import random
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote

import aiohttp

from raftfs.http import names
from raftfs.testing import history as h
from raftfs.testing.nemesis import bodies

TRY_S_MAX: Final = 4.0
OPERATION_S_MAX: Final = 12.0
_CONNECT_S_MAX: Final = 1.0
_GIVE_UP: Final = 0.3
"""Share of unsettled tries after which a client does not ask again, and so leaves an unknown outcome behind."""

_PAUSE_S: Final = 0.1
VALUE_KEY: Final = "value"
"""Metadata key under which a list shows which write a file is of."""

_REFUSED: Final[dict[tuple[str, int], str]] = {
    ("Create", 412): h.EXISTS,
    ("Swap", 412): h.MISMATCH,
    ("Delete", 404): h.MISSING,
    ("Rename", 404): h.MISSING,
    ("Rename", 409): h.EXISTS,
    ("Read", 404): h.MISSING,
}
_DONE: Final[dict[tuple[str, int], str]] = {
    ("Write", 201): h.CREATED,
    ("Write", 200): h.REPLACED,
    ("Create", 201): h.CREATED,
    ("Swap", 200): h.REPLACED,
    ("Delete", 204): h.DELETED,
    ("Rename", 200): h.MOVED,
}
_UNSETTLED: Final = frozenset({502, 503, 504, 507})


async def _no_hidden_retry(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """aiohttp would send a PUT again on its own when a kept connection turns out to be closed. That the second one is
    refused would then hide that the first was sent; so the error is given a class that aiohttp does not act upon."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(str(error) or "connection lost") from error


class Targets(Protocol):
    """The servers that clients ask, and ``tls``, by which they know them (True: as any program of this machine would).
    ``first``: the members through which all is read in the end."""

    @property
    def urls(self) -> Mapping[str, str]: ...

    @property
    def first(self) -> Sequence[str]: ...

    @property
    def tls(self) -> ssl.SSLContext | bool: ...

    def door(self, dice: random.Random) -> str:
        """The server that is asked next."""
        ...


@dataclass
class Notes:
    """What all clients saw. ``wrong``: answers that are wrong by themselves, whatever the order. ``refused``: what
    certainly had no effect, as its clients were told; it is not judged, and explains nothing."""

    history: list[h.Operation] = field(default_factory=list)
    refused: list[h.Operation] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class _Try:
    """``result``: a definite answer. ``maybe``: without one, the write may have been done, or may yet be. ``wrong``:
    the answer makes no sense, and asking again will not help."""

    result: str | None
    revision: int | None
    maybe: bool
    said: str
    etag: str | None = None
    wrong: bool = False


class Door:
    """A client with connections of its own. Each try goes through one of the servers."""

    def __init__(self, name: str, servers: Targets, notes: Notes, dice: random.Random) -> None:
        self._name, self._servers, self._notes, self._dice = name, servers, notes, dice
        timeout = aiohttp.ClientTimeout(total=TRY_S_MAX, connect=_CONNECT_S_MAX)
        self._session = aiohttp.ClientSession(timeout=timeout, middlewares=(_no_hidden_retry,))

    async def close(self) -> None:
        await self._session.close()

    async def do(
        self, call: h.Call, *, size: int = 200, etag: str | None = None, only: str | None = None
    ) -> tuple[str | None, str | None]:
        """Carry out a call and note it. ``only``: through this server alone. Returns its result, and the ETag of what
        was read; (None, None) if nothing is known."""
        request = _request(call, size, etag)
        is_read = isinstance(call, h.Read | h.Names)
        begin, maybe, tries = time.monotonic(), False, []
        while True:
            door = only or self._servers.door(self._dice)
            done = await self._try(call, request, door)
            tries.append(f"{door}:{done.said}")
            maybe = maybe or done.maybe
            late = time.monotonic() - begin > OPERATION_S_MAX
            if done.result is not None or done.wrong or late or (only is None and self._dice.random() < _GIVE_UP):
                break
            await asyncio.sleep(_PAUSE_S * len(tries))
        note = " ".join(tries)
        if done.result is not None:
            self._notes.outcomes["ok"] += 1
            end = time.monotonic()
            self._notes.history.append(h.Operation(call, done.result, begin, end, self._name, done.revision, note))
        elif maybe and not is_read:
            self._notes.outcomes["unknown"] += 1
            self._notes.history.append(h.Operation(call, None, begin, h.NEVER, self._name, None, note))
        else:
            self._notes.outcomes["fail"] += 1
            self._notes.refused.append(h.Operation(call, None, begin, time.monotonic(), self._name, None, note))
        return done.result, done.etag

    async def _try(self, call: h.Call, request: _Request, door: str) -> _Try:
        data = io.BytesIO(request.body) if request.body else None
        try:
            async with self._session.request(
                request.method,
                self._servers.urls[door] + request.path,
                headers=request.headers,
                data=data,
                ssl=self._servers.tls,
            ) as answer:
                body = await answer.read()
                return self._understand(call, answer, body, door)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            self._notes.answers["no connection"] += 1
            return _Try(None, None, maybe=False, said="no-connection")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._notes.answers[type(error).__name__] += 1
            return _Try(None, None, maybe=True, said=type(error).__name__)

    def _understand(self, call: h.Call, answer: aiohttp.ClientResponse, body: bytes, door: str) -> _Try:
        kind = type(call).__name__
        self._notes.answers[str(answer.status)] += 1
        text = answer.headers.get(names.REVISION)
        revision = None if text is None else int(text)
        said = f"{answer.status}"
        if answer.status in _UNSETTLED:
            outcome = answer.headers.get(names.OUTCOME)
            return _Try(None, None, maybe=outcome != "not_applied", said=f"{said}/{outcome}")
        if answer.status == 200 and isinstance(call, h.Read):
            value = bodies.value_of(_place(call.path), body)
            if isinstance(value, bodies.Damage):
                return self._wrong(call, door, value.text)
            return _Try(value, revision, maybe=False, said=said, etag=answer.headers.get("ETag"))
        if answer.status == 200 and isinstance(call, h.Names):
            return _Try(_listed(json.loads(body)), revision, maybe=False, said=said)
        told = _DONE.get((kind, answer.status))
        if told is None:
            told, revision = _REFUSED.get((kind, answer.status)), None  # a refusal carries none, or one of its moment
        if told is None:
            return self._wrong(call, door, f"answer {answer.status}: {body[:300]!r}")
        return _Try(told, revision, maybe=False, said=said)

    def _wrong(self, call: h.Call, door: str, what: str) -> _Try:
        self._notes.wrong.append(f"{time.monotonic():.6f} {self._name} through {door}: {call}: {what}")
        return _Try(None, None, maybe=True, said="wrong", wrong=True)


def _request(call: h.Call, size: int, etag: str | None) -> _Request:
    headers = {"Raftfs-Timeout": f"{TRY_S_MAX - 0.5:g}"}
    match call:
        case h.Read(path):
            return _Request("GET", _file(path), headers, b"")
        case h.Names(path):
            return _Request("GET", f"/v1/dirs{quote(path)}", headers, b"")
    headers[names.IDEMPOTENCY_KEY] = str(uuid.uuid4())
    match call:
        case h.Write(path, value) | h.Create(path, value):
            if isinstance(call, h.Create):
                headers["If-None-Match"] = "*"
            headers[names.META_PREFIX + VALUE_KEY] = value
            return _Request("PUT", _file(path), headers, bodies.make(_place(path), value, size))
        case h.Swap(path, _, value):
            assert etag is not None
            headers |= {"If-Match": etag, names.META_PREFIX + VALUE_KEY: value}
            return _Request("PUT", _file(path), headers, bodies.make(_place(path), value, size))
        case h.Delete(path):
            return _Request("DELETE", _file(path), headers, b"")
        case h.Rename(source, target, replace):
            headers["Content-Type"] = "application/json"
            move = {"from": source, "to": target, "replace": replace}
            return _Request("POST", "/v1/rename", headers, json.dumps(move).encode())
        case _:
            raise NotImplementedError(f"the HTTP API has no {call}")


def _file(path: str) -> str:
    return f"/v1/files{quote(path)}"


def _place(path: str) -> str:
    """What a body is bound to: the directory, within which files may be renamed."""
    return path.rpartition("/")[0]


def _listed(answer: dict[str, Any]) -> str:
    return h.listing((entry["path"], entry["metadata"].get(VALUE_KEY, "(none)")) for entry in answer["entries"])
