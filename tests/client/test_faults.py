"""What a network and a cluster in trouble can do to a call: exactly once, never mixed, and the outcome told truly."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from raftfs import AsyncClient, errors
from raftfs.client.progress import Progress
from tests.consensus.ports import free_address

from .scripted import (
    ScriptedServer,
    body_of,
    content,
    drop,
    drop_early,
    entry,
    problem,
    raw,
    silence,
)

BIG = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
async def hasty(scripted: ScriptedServer) -> AsyncIterator[AsyncClient]:
    """A client that soon gives up."""
    async with AsyncClient(scripted.url, deadline_s=0.5, attempt_s=0.2) as client:
        yield client


def unused_url() -> str:
    return f"http://{free_address()}"


@pytest.mark.parametrize(
    "trouble",
    [
        drop,
        drop_early,
        problem(503, "unavailable", "not_applied"),
        problem(503, "overloaded", "not_applied"),
        problem(504, "unknown_outcome", "unknown"),
        problem(504, "deadline_exceeded", "unknown"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
    ],
)
async def test_a_write_is_repeated_under_the_same_key(
    scripted: ScriptedServer, quick: AsyncClient, trouble: object
) -> None:
    scripted.play(trouble, trouble, entry(201))  # type: ignore[arg-type]
    assert (await quick.write("/f", b"x")).revision == 7
    assert len(scripted.seen) == 3
    assert len({seen.key for seen in scripted.seen}) == 1
    assert scripted.seen[-1].body == b"x"


async def test_every_call_has_a_key_of_its_own(scripted: ScriptedServer, quick: AsyncClient) -> None:
    scripted.play(entry(200))
    await quick.write("/f", b"x")
    await quick.write("/f", b"x")
    await quick.mkdir("/d")
    await quick.rename("/f", "/g")
    await quick.set_metadata("/g", {"a": "b"})
    assert len({seen.key for seen in scripted.seen}) == 5


async def test_a_frozen_server_is_asked_again(scripted: ScriptedServer) -> None:
    scripted.play(silence, entry(201))
    async with AsyncClient(scripted.url, attempt_s=1) as fs:
        await fs.write("/f", b"x")
    assert len({seen.key for seen in scripted.seen}) == 1


async def test_the_next_endpoint_takes_over_and_is_kept(scripted: ScriptedServer) -> None:
    scripted.play(entry(201))
    async with AsyncClient([unused_url(), scripted.url]) as fs:
        await fs.write("/f", b"x")
        await fs.write("/f", b"x")
    assert len(scripted.seen) == 2


async def test_a_large_file_is_sent_again_from_its_first_byte(
    scripted: ScriptedServer, quick: AsyncClient, tmp_path: Path
) -> None:
    async def half(request: web.BaseRequest) -> web.StreamResponse:
        await request.content.readexactly(100_000)
        return await drop_early(request)

    (tmp_path / "big").write_bytes(BIG)
    with (tmp_path / "big").open("rb") as file:
        file.seek(1000)
        for source, expected in ((BIG, BIG), (file, BIG[1000:])):
            scripted.play(half, half, entry(201))
            await quick.write("/f", source)
            assert scripted.seen[-1].body == expected
            assert len({seen.key for seen in scripted.seen}) == 1
    scripted.play(half, entry(201))
    await quick.put(tmp_path / "big", "/f")
    assert scripted.seen[-1].body == BIG
    assert scripted.seen[-1].headers["Content-Length"] == str(len(BIG))


async def test_a_short_stream_is_repeated_and_a_long_one_is_not(scripted: ScriptedServer, quick: AsyncClient) -> None:
    async def short() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    scripted.play(drop, entry(201))
    await quick.write("/f", short())
    assert [seen.body for seen in scripted.seen] == [b"one two", b"one two"]

    def long() -> Iterator[bytes]:
        for _ in range(8):
            yield BIG[: 256 * 1024]

    scripted.play(drop, entry(201))
    with pytest.raises(errors.UnknownOutcome):
        await quick.write("/f", long())
    assert len(scripted.seen) == 1


async def test_a_stream_that_was_cut_in_mid_body_was_not_applied(scripted: ScriptedServer, quick: AsyncClient) -> None:
    async def half(request: web.BaseRequest) -> web.StreamResponse:
        await request.content.readexactly(1_500_000)
        return await drop_early(request)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield BIG[: 64 * 1024]

    scripted.play(half, entry(201))
    with pytest.raises(errors.Unavailable) as caught:
        await quick.write("/f", endless())
    assert caught.value.outcome == "not_applied"
    assert len(scripted.seen) == 1


async def test_a_stream_that_broke_while_its_producer_was_waiting_is_never_taken_for_complete(
    scripted: ScriptedServer, quick: AsyncClient
) -> None:
    async def after_some(request: web.BaseRequest) -> web.StreamResponse:
        await request.content.readexactly(5)
        return await drop_early(request)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"start"
        await asyncio.Event().wait()

    scripted.play(after_some, entry(201))
    with pytest.raises(errors.Unavailable) as caught:
        await quick.write("/f", stuck())
    assert caught.value.outcome == "not_applied"
    assert not any(seen.whole for seen in scripted.seen)


async def test_a_timeout_ends_a_call_whose_producer_hangs(scripted: ScriptedServer, quick: AsyncClient) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"start"
        await asyncio.Event().wait()

    scripted.play(entry(201))
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await quick.write("/f", stuck(), timeout=0.3)
    assert caught.value.outcome == "not_applied"


async def test_when_time_is_over_the_outcome_of_a_sent_write_is_unknown(
    scripted: ScriptedServer, hasty: AsyncClient
) -> None:
    for number, trouble in enumerate((drop, silence, problem(504, "unknown_outcome", "unknown"))):
        scripted.play(trouble)
        with pytest.raises(errors.UnknownOutcome) as caught:
            await hasty.write(f"/f{number}", b"x")
        assert caught.value.outcome == "unknown"
        # An attempt of the call before may arrive only now.
        mine = [seen for seen in scripted.seen if seen.target.startswith(f"/v1/files/f{number}")]
        assert len({seen.key for seen in mine}) == 1


async def test_a_doubtful_attempt_is_remembered_behind_a_refused_one(
    scripted: ScriptedServer, hasty: AsyncClient
) -> None:
    scripted.play(drop, problem(503, "unavailable", "not_applied"))
    with pytest.raises(errors.UnknownOutcome):
        await hasty.write("/f", b"x")


async def test_a_refused_write_was_not_applied(scripted: ScriptedServer, hasty: AsyncClient) -> None:
    scripted.play(problem(503, "unavailable", "not_applied"))
    with pytest.raises(errors.Unavailable) as caught:
        await hasty.write("/f", b"x")
    assert caught.value.outcome == "not_applied"
    assert caught.value.detail == "detail of unavailable"


async def test_a_write_that_reached_nobody_was_not_applied() -> None:
    url = unused_url()
    async with AsyncClient(url, deadline_s=3) as fs:
        with pytest.raises(errors.Unavailable, match="cannot reach") as caught:
            await fs.write("/f", b"x")
        assert caught.value.outcome == "not_applied"
        with pytest.raises(ConnectionError) as read:
            await fs.read("/f")
    assert isinstance(read.value, errors.Unavailable)
    assert read.value.outcome is None


@pytest.mark.parametrize("body", ["small", "large", "streamed"])
async def test_a_transfer_to_nobody_ends(body: str) -> None:
    """A test that hangs here is the failure: it may take as long as bytes move, and none does."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"x"

    data = {"small": b"x", "large": b"x" * 3_000_000, "streamed": stream()}[body]
    async with AsyncClient(unused_url(), deadline_s=0.5) as fs:
        with pytest.raises(errors.Unavailable, match="cannot reach") as caught:
            await fs.write("/a", data)
        assert caught.value.outcome == "not_applied"


async def test_a_retry_after_past_the_deadline_is_not_waited_for(scripted: ScriptedServer, quick: AsyncClient) -> None:
    scripted.play(problem(503, "unavailable", "not_applied", retry_after="3600"))
    with pytest.raises(errors.Unavailable) as caught:
        await quick.write("/f", b"x")
    assert caught.value.retry_after_s == 3600
    assert len(scripted.seen) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(412, "precondition_failed"), (409, "conflict"), (507, "storage_full"), (500, "internal")]
)
async def test_definite_answers_are_not_repeated(
    scripted: ScriptedServer, quick: AsyncClient, status: int, code: str
) -> None:
    scripted.play(problem(status, code, "not_applied"), entry(201))
    with pytest.raises(errors.BY_CODE[code]) as caught:
        await quick.write("/f", b"x")
    assert caught.value.outcome == "not_applied"
    assert len(scripted.seen) == 1


async def test_an_early_refusal_of_a_large_body_is_understood(scripted: ScriptedServer, quick: AsyncClient) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        response = await problem_now(request)
        await request.content.read()  # linger, as servers do, so that the answer is not lost
        return response

    async def problem_now(request: web.BaseRequest) -> web.StreamResponse:
        body = b'{"type":"","title":"","status":412,"detail":"no","code":"precondition_failed","outcome":"not_applied"}'
        response = web.StreamResponse(status=412, headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body)
        await response.write_eof()
        return response

    scripted.play(refuse)
    with pytest.raises(errors.PreconditionFailed):
        await quick.write("/f", BIG * 4, if_match=3)
    assert len(scripted.seen) == 1


async def test_a_local_file_that_changes_is_not_sent(
    scripted: ScriptedServer, quick: AsyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(3 * 1024 * 1024))

    async def change(request: web.BaseRequest) -> web.StreamResponse:
        with path.open("ab") as file:
            file.write(b"more")
        return await drop_early(request)

    scripted.play(change, entry(201))
    with pytest.raises(errors.InvalidRequest, match="changed while"):
        await quick.put(path, "/f")
    assert not scripted.seen[-1].whole


@pytest.mark.parametrize("gone", [False, True])
async def test_a_local_file_that_changes_after_a_doubtful_attempt_leaves_the_doubt(
    scripted: ScriptedServer, quick: AsyncClient, tmp_path: Path, gone: bool
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(10))

    async def apply_and_drop(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        if gone:
            path.unlink()
        else:
            path.write_bytes(bytes(20))
        return await drop(request)

    scripted.play(apply_and_drop, entry(201))
    with pytest.raises(errors.UnknownOutcome) as caught:
        await quick.put(path, "/f")
    assert caught.value.outcome == "unknown"


async def test_errors_of_the_producer_come_through_and_end_the_upload(
    scripted: ScriptedServer, quick: AsyncClient
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"x" * 70_000
        raise ZeroDivisionError

    def not_bytes() -> Iterator[bytes]:
        yield b"x"
        yield None  # type: ignore[misc]

    scripted.play(entry(201))
    with pytest.raises(ZeroDivisionError):
        await quick.write("/f", failing())
    with pytest.raises(TypeError, match="must give bytes"):
        await quick.write("/f", not_bytes())
    assert not any(seen.whole for seen in scripted.seen)


async def test_text_is_refused_before_anything_is_sent(
    scripted: ScriptedServer, quick: AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "t").write_text("x")
    with pytest.raises(TypeError, match="not str"):
        await quick.write("/f", "text")  # type: ignore[arg-type]
    with (tmp_path / "t").open() as file, pytest.raises(TypeError, match="TextIOWrapper"):
        await quick.write("/f", file)  # type: ignore[arg-type]
    assert scripted.seen == []


async def test_a_pipe_is_streamed(scripted: ScriptedServer, quick: AsyncClient) -> None:
    scripted.play(entry(201))
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as out, os.fdopen(writer, "wb") as into:
        task = asyncio.create_task(quick.put(out, "/f"))
        for _ in range(3):
            await asyncio.to_thread(into.write, b"piece ")
            await asyncio.to_thread(into.flush)
        into.close()
        await task
    assert scripted.seen[0].body == b"piece piece piece "


async def test_cancelling_an_upload_breaks_it_off(scripted: ScriptedServer, quick: AsyncClient) -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def watch(request: web.BaseRequest) -> web.StreamResponse:
        await request.content.readexactly(5)
        arrived.set()
        try:
            await body_of(request)
        finally:
            ended.set()
        return web.Response()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"start"
        await asyncio.Event().wait()

    scripted.play(watch)
    task = asyncio.create_task(quick.write("/f", stuck()))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()
    assert not scripted.seen[0].whole


# What is sent


async def test_paths_cannot_leave_their_place(scripted: ScriptedServer, quick: AsyncClient) -> None:
    for path in ("/a/../b", "/./b", "//b", "/a\0b", "/" + "x" * 256, "/\ud800"):
        for call in (quick.read(path), quick.write(path, b""), quick.mkdir(path), quick.rename("/a", path)):
            with pytest.raises(errors.InvalidPath):
                await call
    assert scripted.seen == []


async def test_every_byte_of_a_name_arrives(scripted: ScriptedServer, quick: AsyncClient) -> None:
    scripted.play(entry(201))
    await quick.write("/a b/%2e%2e/x?y#z;ü/+&=", b"")
    assert scripted.seen[0].target == "/v1/files/a%20b/%252e%252e/x%3Fy%23z%3B%C3%BC/%2B%26%3D"


async def test_preconditions_and_options_become_headers_and_parameters(
    scripted: ScriptedServer, quick: AsyncClient
) -> None:
    scripted.play(entry(201))
    await quick.write("/f", b"abc", if_match=12, parents=True, ack="all", checksum=True, timeout=4)
    seen = scripted.seen[0]
    assert seen.target == "/v1/files/f?parents=true&ack=all"
    assert seen.headers["If-Match"] == '"r12"'
    assert seen.headers["Repr-Digest"] == "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:"
    assert 0 < float(seen.headers["Raftfs-Timeout"]) < 4
    scripted.play(content(b"x"))
    await quick.read("/f", consistency="bounded", max_staleness=2.5)
    assert scripted.seen[0].target == "/v1/files/f?consistency=bounded&max_staleness=2.5"


async def test_calls_that_contradict_themselves_are_refused(scripted: ScriptedServer, quick: AsyncClient) -> None:
    for call in (
        quick.write("/f", b"", if_absent=True, if_match=1),
        quick.read("/f", max_staleness=1),
        quick.read("/f", consistency="eventual"),  # type: ignore[arg-type]
        quick.write("/f", b"", metadata={"": "x"}),
        quick.write("/f", b"", timeout=0),
        quick.read("/f", timeout=-1),
        quick.write("/f", b"", content_type="a\r\nb"),
    ):
        with pytest.raises(errors.InvalidRequest):
            await call
    with pytest.raises(errors.RangeNotSatisfiable):
        await quick.read("/f", start=3, stop=2)
    with pytest.raises(ValueError, match="mode must be one of"):
        quick.open("/f", "ab")  # type: ignore[call-overload]
    assert scripted.seen == []


async def test_progress_gives_back_what_a_failed_attempt_sent(
    scripted: ScriptedServer, quick: AsyncClient, tmp_path: Path
) -> None:
    async def half(request: web.BaseRequest) -> web.StreamResponse:
        await request.content.readexactly(1_500_000)
        return await drop_early(request)

    (tmp_path / "big").write_bytes(BIG)
    scripted.play(half, entry(201))
    reports: list[Progress] = []
    await quick.put(tmp_path / "big", "/f", progress=reports.append)
    assert reports[-1] == Progress("/f", len(BIG), len(BIG), 1, 1)
    assert all(0 <= report.done_bytes <= len(BIG) for report in reports)
