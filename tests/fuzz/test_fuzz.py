"""A little of it at each run of the tests, and that each oracle notices a parser that is broken on purpose."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from raftfs.chunks import ChunkStore
from raftfs.client import AsyncClient
from raftfs.config import FrontendConfig
from raftfs.consensus import frames, rpc, segments
from raftfs.consensus import messages as m
from raftfs.consensus.guard import Guard
from raftfs.consensus.journal import Journal
from raftfs.consensus.peers import Hello, PeerTransport
from raftfs.consensus.rejoinfile import Content
from raftfs.consensus.termfile import TermFile
from raftfs.frontend import Directory, Forwarder, FrontendApp
from raftfs.frontend.upstream import Upstream
from raftfs.http import Call, HttpMetrics, HttpServer
from raftfs.service.datadir import Identity
from raftfs.service.recovery import Recovery
from raftfs.state import Reader, StateMachine
from raftfs.state.commands import decode_envelope

from . import files, targets
from . import web as over_http
from .mutate import CORPUS
from .run import Finding, fuzz_one

EXAMPLES = int(os.environ.get("RAFTFS_TEST_FUZZ_EXAMPLES", "300"))
SLOW = {"messages": 5, "http": 4, "frontend": 40, "client": 40, "commands": 2, "journal": 2, "greetings": 4}
"""How many times fewer inputs a target gets, because each costs more."""


@pytest.mark.parametrize("name", [*targets.TARGETS, *over_http.WEB])
def test_fuzz(name: str) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    tried = fuzz_one(name, EXAMPLES // SLOW.get(name, 1), seed)
    print(f"{tried} inputs")


class LateLimit(frames.Connection):
    """Takes a frame of any length."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "frame_bytes_max": 10**9})


class TrustingClient(rpc.BulkClient):
    """Takes every frame for an answer."""

    def _frame(self, connection: frames.Connection, raw: bytes) -> None:
        msgspec.msgpack.decode(raw[2:])


class ForgetfulGuard(Guard):
    """Lets a leader's entries replace what is committed."""

    def _trim(self, prev: int, entries: list[m.WireEntry]) -> tuple[int, list[m.WireEntry]]:
        return prev, entries


def journal_without_checksums(directory: Path, **options: Any) -> Journal:
    """Makes the checksum of each record fit before it is looked at."""
    for path in directory.glob("*.segment"):
        raw, offset = bytearray(path.read_bytes()), segments.SEGMENT_HEADER_BYTES
        while offset + segments.RECORD_HEADER_BYTES < len(raw):
            length, _, index, term, synced = segments._RECORD.unpack_from(raw, offset)
            start = offset + segments.RECORD_HEADER_BYTES
            if length > len(raw) - start:
                break
            raw[offset:start] = segments.encode_record(index, term, bytes(raw[start : start + length]), synced)[
                : segments.RECORD_HEADER_BYTES
            ]
            offset = start + length
        path.write_bytes(raw)
    return Journal(directory, **options)


class GuessingTermFile(TermFile):
    """Takes a bad copy for a vote that was never given."""

    def _load(self) -> None:
        if self._read_slot(0) is None:
            return
        super()._load()


def identity_as_it_stands(data_dir: Path) -> Identity | None:
    """Without its checksum."""
    found = msgspec.json.decode((data_dir / "node.json").read_bytes())
    return Identity(str(found["uuid"]), str(found["id"]), str(found["cluster_id"]))


class TrustingStore(ChunkStore):
    """Takes a chunk under any digest."""

    def put(self, digest: bytes, data: Any, *, verified: bool = False) -> bool:
        return super().put(digest, data, verified=True)


def rejoin_as_it_stands(data_dir: Path) -> Content:
    """Without its checksum."""
    return msgspec.convert(msgspec.json.decode((data_dir / "rejoin.json").read_bytes())["content"], Content)


def recovery_as_it_stands(data_dir: Path) -> Recovery:
    """Without its checksum."""
    found = msgspec.json.decode((data_dir / "recovery.json").read_bytes())
    return msgspec.convert(found["recovery"], Recovery)


def copy_as_announced(data_dir: Path) -> bool:
    """Without a look at the copy."""
    return "index" in msgspec.json.decode((data_dir / "snapshot" / "ready.json").read_bytes())


class StrictMachine(StateMachine):
    """Raises for what it cannot decode."""

    def apply(self, index: int, term: int, commands: Any) -> Any:
        for command in commands:
            decode_envelope(command)
        return super().apply(index, term, commands)


def list_anything(reader: Reader, path: str, *, limit: int, cursor: str, recursive: bool) -> Any:
    """Gives a wrong cursor the first page, in the wrong length."""
    return reader.list(path, limit=limit + 1, recursive=True)


def parse_anything(model: Any, body: bytes, url: str) -> Any:
    return model(**msgspec.json.decode(body))


class _Buggy:
    """An application with a bug in it."""

    metrics, deadline_s = HttpMetrics(), 2.0

    async def respond(self, call: Call) -> web.StreamResponse:
        if call.route == "files":
            raise ZeroDivisionError("a planted bug")
        return web.Response(text="ok\n")


@contextmanager
def http_with_a_bug() -> Iterator[Callable[[bytes], None]]:
    loop, started = asyncio.new_event_loop(), threading.Event()
    urls: list[str] = []

    async def serve(stop: asyncio.Event) -> None:
        async with HttpServer(_Buggy(), "127.0.0.1:0", grace_s=0.1) as server:
            urls.append(server.url)
            started.set()
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop),))
    thread.start()
    started.wait()
    try:
        with over_http.http(urls[0]) as check:
            yield check
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class GuessingForwarder(Forwarder):
    """Takes every tag of a node for one of ours."""

    async def read(self, call: Call, *, leader_first: bool = False) -> web.StreamResponse:
        answer = await super().read(call, leader_first=leader_first)
        int(answer.headers.get("ETag", '"r0"')[2:-1])
        return answer


@asynccontextmanager
async def frontend_that_guesses(config: FrontendConfig) -> AsyncIterator[HttpServer]:
    upstream = Upstream()
    directory = Directory(upstream, config.nodes)
    app = FrontendApp(GuessingForwarder(directory, upstream), deadline_s=config.request_deadline_s)
    try:
        async with HttpServer(app, config.listen) as server:
            yield server
    finally:
        await directory.close()
        await upstream.close()


class RaisingClient(AsyncClient):
    """Lets an error of another kind out."""

    async def stat(self, *arguments: Any, **options: Any) -> Any:
        raise KeyError("size")


class Hospitable(PeerTransport):
    """Welcomes everybody who names a member."""

    def _check_hello(self, hello: Hello, connection: frames.Connection) -> str | None:
        return None if hello.sender in self._peers else "no member"


BROKEN: dict[str, Any] = {
    "frames": partial(targets.frames_, LateLimit),
    "greetings": partial(targets.greetings, Hospitable),
    "bulk": partial(targets.bulk, TrustingClient),
    "messages": partial(targets.messages, ForgetfulGuard),
    "journal": partial(files.journal, journal_without_checksums),
    "term": partial(files.term_file, GuessingTermFile),
    "identity": partial(files.identity, identity_as_it_stands),
    "commands": partial(targets.commands, StrictMachine),
    "cursors": partial(targets.cursors, list_anything),
    "bodies": partial(targets.bodies, parse_anything),
    "handlers": partial(targets.handlers, TrustingStore),
    "rejoin": partial(files.rejoin, rejoin_as_it_stands),
    "recovery": partial(files.recovery, recovery_as_it_stands),
    "snapshot": partial(files.snapshot, copy_as_announced),
    "http": http_with_a_bug,
    "frontend": partial(over_http.frontend, frontend_that_guesses),
    "client": partial(over_http.client, RaisingClient),
}


def test_each_target_has_a_broken_parser() -> None:
    assert set(BROKEN) == {*targets.TARGETS, *over_http.WEB}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore")  # what is broken leaves things behind
def test_a_broken_parser_is_noticed(name: str, tmp_path: Path) -> None:
    with pytest.raises(Finding) as found:
        fuzz_one(name, 3000, 1, BROKEN[name])
    found.value.path.unlink()


def test_what_was_found_is_kept_and_tried_first() -> None:
    kept = list(CORPUS.glob("*/found-*"))
    assert len(kept) >= 5
    assert {path.parent.name for path in kept} <= {*targets.TARGETS, "http", "answers"}
