"""HTTP as these tests speak it: one request, one answer; nothing is retried and nothing is hidden."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1024 * 1024
ANSWER_S_MAX = 60.0
"""Far beyond every deadline of the product: an answer that takes longer counts as none at all."""


@dataclass(frozen=True)
class Answer:
    """``headers`` by lower-case name. ``body`` is empty, and ``sha256`` and ``size`` speak for it, after a fetch."""

    status: int
    headers: dict[str, str]
    body: bytes
    sha256: str
    size: int
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def code(self) -> str | None:
        """The stable code of a problem; None if this is none."""
        return self.headers.get("raftfs-error")

    @property
    def outcome(self) -> str | None:
        return self.headers.get("raftfs-outcome")

    def __str__(self) -> str:
        return f"{self.status} {self.code or ''} {self.outcome or ''} in {self.seconds:.2f} s: {self.body[:300]!r}"


def address_of(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


def ask(
    url: str,
    method: str,
    target: str,
    *,
    body: bytes | Iterable[bytes] | None = None,
    headers: dict[str, str] | None = None,
    timeout_s: float = ANSWER_S_MAX,
    keep: bool = True,
) -> Answer:
    """One request on a connection of its own. ``keep`` False: the body is only hashed, however long it is.

    An iterable body goes out chunked, unless ``headers`` announce its length. Raises OSError or HTTPException if there
    is no whole answer.
    """
    begun = time.monotonic()
    connection = http.client.HTTPConnection(*address_of(url), timeout=timeout_s)
    with closing(connection):
        connection.connect()
        # The server may have answered, and closed, before it had the whole body.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, target, body=body, headers=headers or {})
        with connection.getresponse() as response:
            pieces: list[bytes] = []
            hasher, size = hashlib.sha256(), 0
            while piece := response.read(BLOCK_BYTES):
                hasher.update(piece)
                size += len(piece)
                if keep:
                    pieces.append(piece)
            announced = response.headers.get("Content-Length")
            if method != "HEAD" and announced is not None and int(announced) != size:
                raise http.client.IncompleteRead(b"", int(announced) - size)
            found = {name.lower(): value for name, value in response.headers.items()}
            seconds = time.monotonic() - begun
            return Answer(response.status, found, b"".join(pieces), hasher.hexdigest(), size, seconds)


def put(url: str, path: str, data: bytes, **headers: str) -> Answer:
    return ask(url, "PUT", f"/v1/files{path}", body=data, headers={k.replace("_", "-"): v for k, v in headers.items()})


def get(url: str, path: str, query: str = "", **headers: str) -> Answer:
    renamed = {k.replace("_", "-"): v for k, v in headers.items()}
    return ask(url, "GET", f"/v1/files{path}{query}", headers=renamed)


def fetch(url: str, path: str, query: str = "") -> Answer:
    """GET a file of any size; its bytes are hashed and forgotten."""
    return ask(url, "GET", f"/v1/files{path}{query}", keep=False)


def put_local(url: str, path: str, source: Path) -> Answer:
    """PUT a local file as a stream of blocks with its length announced."""
    headers = {"Content-Length": str(source.stat().st_size)}
    with source.open("rb") as file:
        return ask(url, "PUT", f"/v1/files{path}", body=iter(lambda: file.read(BLOCK_BYTES), b""), headers=headers)


def status_of(url: str) -> dict[str, Any]:
    """``/v1/cluster`` as one node sees it."""
    return ask(url, "GET", "/v1/cluster", timeout_s=10).json


def leader_of(url: str) -> str | None:
    """The leader as one node sees it, by name; None if it knows none."""
    leader = status_of(url)["leader"]
    return leader and str(leader["id"])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class RawExchange:
    """What came of bytes sent without any manners. ``closed``: the server ended the connection."""

    sent: int
    received: bytes
    closed: bool

    @property
    def status(self) -> int | None:
        """Status of the first answer on the connection; None if there is none."""
        words = self.received.split(b" ", 2)
        return int(words[1]) if self.received.startswith(b"HTTP/1.") else None


def raw(
    address: tuple[str, int], pieces: Iterable[bytes], *, finish: bool = False, wait_s: float = 20.0
) -> RawExchange:
    """Send pieces until the server will have no more, then read until it closes or says nothing for ``wait_s``.

    ``finish``: close the sending side after the last piece.
    """
    sent = 0
    with socket.create_connection(address, timeout=wait_s) as sock:
        with contextlib.suppress(OSError):
            for piece in pieces:
                sock.sendall(piece)
                sent += len(piece)
            if finish:
                sock.shutdown(socket.SHUT_WR)
        received, closed = _read_to_end(sock)
        return RawExchange(sent, received, closed)


def _read_to_end(sock: socket.socket) -> tuple[bytes, bool]:
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionResetError:
        return received, True
    except TimeoutError:
        return received, False
    return received, True


def abandon(address: tuple[str, int], pieces: Iterable[bytes]) -> None:
    """Send pieces and vanish without a word."""
    with socket.create_connection(address, timeout=20) as sock:
        for piece in pieces:
            sock.sendall(piece)


def blocks(total_bytes: int, block: bytes) -> Iterator[bytes]:
    """``total_bytes`` made of one block over and over."""
    while total_bytes > 0:
        yield block[:total_bytes]
        total_bytes -= len(block)
