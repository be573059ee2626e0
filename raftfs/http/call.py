"""One request, decoded strictly: route, path, query, deadline, body.

The path is taken from the request line as it was sent. Nothing normalises it first, so ``a/../b`` arrives as it is
and can be refused (by ``raftfs.paths``), however its dots are spelled.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web

from raftfs.errors import Forbidden, InvalidPath, InvalidRequest, MethodNotAllowed, NoSuchRoute
from raftfs.http import names
from raftfs.http.body import Body
from raftfs.limits import REQUEST_DEADLINE_S_MAX

_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_MEMBER: Final = re.compile(r"/v1/cluster/members/([^/]+)(/replace)?")
_EXACT: Final = {
    "/v1/export": "export",
    "/v1/rename": "rename",
    "/v1/copy": "copy",
    "/v1/cluster": "cluster",
    "/v1/cluster/leader": "cluster/leader",
    "/v1/cluster/members": "cluster/members",
    "/livez": "livez",
    "/readyz": "readyz",
    "/metrics": "metrics",
    "/": "page",
}
_TRUE: Final = frozenset({"", "true", "1"})
_FALSE: Final = frozenset({"false", "0"})


class Call:
    """A request on its way through a node or a frontend. Construction never fails; :meth:`resolve` may.

    ``route`` is a name of :data:`raftfs.http.names.METHODS` ("none" until resolved), ``path`` what follows
    ``/v1/files`` or ``/v1/dirs`` (decoded, not yet checked by ``raftfs.paths``), ``target`` the request target as it
    can be sent on (ASCII).
    """

    __slots__ = ("_query_text", "body", "deadline", "headers", "method", "path", "request", "route", "spare_key",
                 "target", "timeout_s", "write")  # fmt: skip

    def __init__(self, request: web.BaseRequest, timeout_s: float) -> None:
        self.request = request
        self.method = request.method
        self.headers = request.headers
        self.write = self.method in names.WRITES
        self.route = "none"
        self.path = "/"
        self.target = "/"
        self.timeout_s = timeout_s
        self.deadline = 0.0
        self._query_text = ""
        self.spare_key: str | None = None  # idempotency key that a forwarder added, because the client sent none
        self.body = Body(request)

    def resolve(self) -> None:
        """Find the route. Raises NoSuchRoute, MethodNotAllowed, Forbidden, InvalidPath, InvalidRequest."""
        raw = self.request.raw_path
        if not raw.startswith("/") and (absolute := _ABSOLUTE.match(raw)):
            raw = raw[absolute.end() :] or "/"
        self.target = raw if raw.isascii() else _ascii(raw)
        path, _, self._query_text = raw.partition("?")
        if path.startswith("/v1/files/"):
            self.route, self.path = "files", decode_path(path[9:])
        elif path.startswith("/v1/dirs/") or path == "/v1/dirs":
            self.route, self.path = "dirs", decode_path(path[8:] or "/")
        elif (member := _MEMBER.fullmatch(path)) is not None:
            self.route, self.path = "cluster/replace" if member[2] else "cluster/member", decode_path(member[1])
        elif (exact := _EXACT.get(path)) is not None:
            self.route = exact
        else:
            raise NoSuchRoute(f"there is no route {path!r}; the API is under /v1/files, /v1/dirs, /v1/export, "
                              "/v1/cluster, /v1/rename and /v1/copy")  # fmt: skip
        allowed = names.METHODS[self.route]
        if self.method not in allowed:
            raise MethodNotAllowed(f"{self.method} is not answered here; allowed: {', '.join(allowed)}")
        for name in names.ONCE:
            if name in self.headers and len(self.headers.getall(name)) > 1:
                raise InvalidRequest(f"header {name} is there twice")
        if self.write:
            self._check_origin()
        self._set_deadline()

    def _check_origin(self) -> None:
        """A browser lets any page of the web send some requests, also to this machine's loopback, and says from where.
        Raises Forbidden unless that is this server's own page."""
        origin = self.headers.get("Origin")
        if origin is not None and self.hops() == 0 and origin.partition("://")[2] != self.headers.get("Host"):
            raise Forbidden(f"a page of {origin[:200]} may not write here")

    def _set_deadline(self) -> None:
        text = self.headers.get(names.TIMEOUT)
        if text is not None:
            try:
                seconds = float(text)
            except ValueError:
                seconds = 0.0
            if not 0 < seconds <= REQUEST_DEADLINE_S_MAX:
                raise InvalidRequest(
                    f"{names.TIMEOUT}: {text!r} is not a number of seconds above 0, at most {REQUEST_DEADLINE_S_MAX:g}"
                )
            self.timeout_s = seconds
        self.deadline = asyncio.get_running_loop().time() + self.timeout_s

    def remaining_s(self) -> float:
        """Seconds left until the deadline, at least 0."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    def hops(self) -> int:
        """How many forwarders the request came through. Raises InvalidRequest."""
        text = self.headers.get(names.FORWARDED)
        if text is None:
            return 0
        if not (text.isascii() and text.isdigit() and len(text) < 4):
            raise InvalidRequest(f"{names.FORWARDED}: {text!r} is not a small number")
        return int(text)

    def query(self, allowed: Sequence[str] = ()) -> Query:
        """The query parameters. Raises InvalidRequest for one that is not ``allowed``, twice there, or not UTF-8."""
        return Query(self._query_text, allowed)

    def has_query(self, piece: str) -> bool:
        """Whether ``name=value`` stands in the query just so: for those who only pass it on and leave checking it to
        the node that answers."""
        return piece in self._query_text and piece in self._query_text.split("&")


class Query:
    """Query parameters of a request, each at most once."""

    __slots__ = ("_values",)

    def __init__(self, text: str, allowed: Sequence[str]) -> None:
        self._values: dict[str, str] = {}
        if not text:
            return
        for piece in text.split("&"):
            if not piece:
                continue
            raw_name, _, raw_value = piece.partition("=")
            name, value = _decode_query(raw_name), _decode_query(raw_value)
            if name not in allowed:
                known = ", ".join(sorted(allowed)) or "none"
                raise InvalidRequest(f"unknown query parameter {name!r}; allowed here: {known}")
            if name in self._values:
                raise InvalidRequest(f"query parameter {name!r} is there twice")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        return self._values.get(name)

    def flag(self, name: str) -> bool:
        """A boolean: absent is False, the bare name is True."""
        value = self._values.get(name)
        if value is None or value.lower() in _FALSE:
            return False
        if value.lower() in _TRUE:
            return True
        raise InvalidRequest(f"query parameter {name}={value!r} is neither true nor false")

    def choice(self, name: str, values: Sequence[str]) -> str:
        """One of ``values``; the first is the default."""
        value = self._values.get(name, values[0])
        if value not in values:
            raise InvalidRequest(f"query parameter {name}={value!r} is not one of {', '.join(values)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):
            raise InvalidRequest(f"query parameter {name}={value!r} is not a whole number from {low} to {high}")
        return int(value)

    def seconds(self, name: str) -> float | None:
        value = self._values.get(name)
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= REQUEST_DEADLINE_S_MAX:
            raise InvalidRequest(
                f"query parameter {name}={value!r} is not a number of seconds from 0 to {REQUEST_DEADLINE_S_MAX:g}"
            )
        return number


def decode_path(raw: str) -> str:
    """Percent-decode a path strictly. Raises InvalidPath for a broken escape or bytes that are not UTF-8."""
    if "%" not in raw and raw.isascii() and "#" not in raw:
        return raw
    if "#" in raw:
        raise InvalidPath("the path contains '#', which must be written as %23")
    # aiohttp hands bytes that are not UTF-8 on as lone surrogates; this turns them back into what was sent.
    data = raw.encode("utf-8", "surrogateescape")
    if _BAD_ESCAPE.search(data):
        raise InvalidPath("the path contains a '%' that is not followed by two hexadecimal digits (write it as %25)")
    try:
        return unquote_to_bytes(data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidPath(f"the path is not UTF-8: {error.reason} at byte {error.start}") from None


def _decode_query(raw: str) -> str:
    if "%" not in raw and "+" not in raw and raw.isascii():
        return raw
    try:
        return unquote_to_bytes(raw.replace("+", " ").encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the query is not UTF-8: {error.reason}") from None


def _ascii(raw: str) -> str:
    data = raw.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in data)
