"""GET and HEAD of files and directories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from raftfs import paths
from raftfs.api.conditions import check_read, range_applies
from raftfs.api.fields import entry, stat_headers
from raftfs.api.options import READ_QUERY, REVISION_MAX, read_options
from raftfs.api.ranges import parse_range
from raftfs.errors import DeadlineExceeded, NotADirectory, RangeNotSatisfiable, Unavailable
from raftfs.http import Call, names, problem_response
from raftfs.limits import BODY_IDLE_S_MAX, PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX, WRITE_SLICE_BYTES
from raftfs.service import Files, OpenFile, ReadInfo
from raftfs.state import Exported
from raftfs.state.commands import Stat

LIST_QUERY: Final = (*READ_QUERY, "limit", "cursor", "recursive", "glob")
EXPORT_QUERY: Final = (*READ_QUERY, "path", "limit", "cursor", "data_since")
_AT_ONCE_BYTES_MAX: Final = 64 * 1024  # up to this an answer is put together first and sent in one piece
_encode = msgspec.json.Encoder().encode


class Reading:
    """The reading routes of a node."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def get_file(self, call: Call) -> web.StreamResponse:
        options = read_options(call, call.query(READ_QUERY))
        opened = await self._files.open(call.path, options)
        stat = opened.stat
        headers = _file_headers(stat, opened.info)
        if not check_read(call.headers, stat):
            return _not_modified(headers)
        start, stop, status = 0, stat.size, 200
        if range_applies(call.headers, stat):
            try:
                part = parse_range(call.headers.get("Range"), stat.size)
            except RangeNotSatisfiable as error:
                return problem_response(error, write=False, headers={"Content-Range": f"bytes */{stat.size}"})
            if part is not None:
                start, stop = part
                status = 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stat.size}"
        return await _send(call, opened, start, stop, status, headers)

    async def head_file(self, call: Call) -> web.StreamResponse:
        options = read_options(call, call.query(READ_QUERY))
        stat, info = await self._files.stat(call.path, options)
        if stat.is_directory:
            return _directory_head(stat, info)  # so that whoever does not know what is there need ask only once
        headers = _file_headers(stat, info)
        if not check_read(call.headers, stat):
            return _not_modified(headers)
        headers["Content-Length"] = str(stat.size)
        return web.Response(headers=headers)

    async def head_directory(self, call: Call) -> web.StreamResponse:
        options = read_options(call, call.query(READ_QUERY))
        stat, info = await self._files.stat(call.path, options)
        if not stat.is_directory:
            raise NotADirectory(f"{stat.path} is a file: see /v1/files")
        return _directory_head(stat, info)

    async def get_directory(self, call: Call) -> web.StreamResponse:
        query = call.query(LIST_QUERY)
        page, info = await self._files.list(
            call.path,
            read_options(call, query),
            limit=query.integer("limit", 1, PAGE_ENTRIES_MAX) or PAGE_ENTRIES_DEFAULT,
            cursor=query.text("cursor"),
            recursive=query.flag("recursive"),
            glob=query.text("glob"),
        )
        body = _encode(
            {"entries": [entry(stat) for stat in page.entries], "next": page.next, "revision": page.revision}
        )
        headers: CIMultiDict[str] = CIMultiDict()
        _add_info(headers, info)
        return web.Response(body=body, headers=headers, content_type="application/json")

    async def get_export(self, call: Call) -> web.StreamResponse:
        query = call.query(EXPORT_QUERY)
        page, info = await self._files.export(
            query.text("path") or paths.ROOT,
            read_options(call, query),
            limit=query.integer("limit", 1, PAGE_ENTRIES_MAX) or PAGE_ENTRIES_MAX,
            cursor=query.text("cursor"),
            since=query.integer("data_since", 0, REVISION_MAX),
        )
        body = _encode(
            {"entries": [_exported(one) for one in page.entries], "next": page.next, "revision": page.revision}
        )
        headers: CIMultiDict[str] = CIMultiDict()
        _add_info(headers, info)
        return web.Response(body=body, headers=headers, content_type="application/json")


def _exported(one: Exported) -> dict[str, Any]:
    """An entry with its chunks: digests in hexadecimal, ``data`` in base64."""
    shown = entry(one.stat)
    if not one.stat.is_directory:
        shown |= {"offset": one.offset, "more": one.more, "data": one.data}  # bytes are encoded as base64
        shown["chunks"] = [(chunk.digest.hex(), chunk.length) for chunk in one.chunks]
    return shown


def _directory_head(stat: Stat, info: ReadInfo) -> web.Response:
    headers = stat_headers(stat)
    _add_info(headers, info)
    return web.Response(headers=headers)


def _file_headers(stat: Stat, info: ReadInfo) -> CIMultiDict[str]:
    headers = stat_headers(stat)
    headers["Content-Type"] = stat.content_type or "application/octet-stream"
    headers["Accept-Ranges"] = "bytes"
    headers["Cache-Control"] = "no-cache"
    # What people store must not run as part of this origin, beside the API and the status page.
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Content-Security-Policy"] = "sandbox"
    _add_info(headers, info)
    return headers


def _add_info(headers: CIMultiDict[str], info: ReadInfo) -> None:
    headers[names.REVISION] = str(info.revision)
    if info.stale:
        headers[names.STALE] = "true"
        if info.age_ms is not None:
            headers[names.AGE_MS] = str(info.age_ms)


def _not_modified(headers: CIMultiDict[str]) -> web.Response:
    headers.popall("Content-Type", None)
    return web.Response(status=304, headers=headers)


async def _send(
    call: Call, opened: OpenFile, start: int, stop: int, status: int, headers: CIMultiDict[str]
) -> web.StreamResponse:
    """Send bytes [start, stop). An error before the first byte is still a proper answer; after it, the caller breaks
    the connection."""
    if start == stop:
        return web.Response(body=b"", status=status, headers=headers)
    async with aclosing(_pieces(opened, start, stop)) as pieces:
        at_once = stop - start <= _AT_ONCE_BYTES_MAX
        piece = await _first(call, pieces, whole=at_once)
        if at_once:
            return web.Response(body=piece, status=status, headers=headers)
        headers["Content-Length"] = str(stop - start)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(call.request)
        await _write(response, piece)
        async for piece in pieces:
            await _write(response, piece)
        await response.write_eof()
        return response


async def _first(call: Call, pieces: AsyncGenerator[bytes, None], *, whole: bool) -> bytes:
    """The first piece, or all of them, by the deadline: what is missing here may have to come from a slow peer."""
    try:
        async with asyncio.timeout(call.remaining_s()) as scope:
            return b"".join([piece async for piece in pieces]) if whole else await anext(pieces)
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineExceeded(f"the file's bytes could not be had within {call.timeout_s:g} s") from None


async def _pieces(opened: OpenFile, start: int, stop: int) -> AsyncGenerator[bytes, None]:
    """The pieces of [start, stop), checked to be exactly that many bytes."""
    left = stop - start
    async with aclosing(opened.read(start, stop)) as source:
        async for piece in source:
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise Unavailable(f"{opened.stat.path} gave {stop - start - left} bytes instead of {stop - start}")


async def _write(response: web.StreamResponse, piece: bytes) -> None:
    view = memoryview(piece)
    for at in range(0, len(view), WRITE_SLICE_BYTES):
        try:
            async with asyncio.timeout(BODY_IDLE_S_MAX):
                await response.write(view[at : at + WRITE_SLICE_BYTES])
        except TimeoutError:
            raise Unavailable(f"the client took no byte for {BODY_IDLE_S_MAX:g} s") from None
