"""Ranges against slicing."""

from __future__ import annotations

import io
import os

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftfs.api.ranges import parse_range
from raftfs.errors import InvalidRequest, RangeNotSatisfiable
from raftfs.limits import CHUNK_BYTES

numbers = st.integers(min_value=0, max_value=60)


@given(size=numbers, first=numbers, last=st.one_of(st.none(), numbers))
def test_a_range_is_a_slice(size: int, first: int, last: int | None) -> None:
    data = bytes(range(size))
    text = f"bytes={first}-{'' if last is None else last}"
    if last is not None and last < first:
        with pytest.raises(InvalidRequest):
            parse_range(text, size)
    elif first >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(text, size)
    else:
        part = parse_range(text, size)
        assert part is not None
        assert data[part[0] : part[1]] == data[first : None if last is None else last + 1] != b""


@given(size=numbers, suffix=numbers)
def test_a_suffix_is_a_slice(size: int, suffix: int) -> None:
    data = bytes(range(size))
    if not suffix or not size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(f"bytes=-{suffix}", size)
    else:
        part = parse_range(f"bytes=-{suffix}", size)
        assert part is not None
        assert data[part[0] : part[1]] == data[-suffix:]


@given(st.text(max_size=20))
def test_no_text_makes_anything_else_of_it(text: str) -> None:
    for header in (text, f"bytes={text}"):
        try:
            part = parse_range(header, 10)
        except (InvalidRequest, RangeNotSatisfiable):
            continue
        assert part is None or 0 <= part[0] < part[1] <= 10


def test_what_is_answered_whole_and_what_is_refused() -> None:
    for whole in (None, "items=0-1", "bytes=0-1,3-4", "bytes=-1, 0-0"):
        assert parse_range(whole, 10) is None
    for wrong in ("bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=--1", "bytes=5-4", "bytes=0x1-2",
                  "bytes=0-1,b", "bytes=\u0661-\u0662"):  # fmt: skip
        with pytest.raises(InvalidRequest):
            parse_range(wrong, 10)


async def test_parts_of_a_file_across_its_chunks(url: str, http: aiohttp.ClientSession) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 1000)
    size = len(data)
    async with http.put(f"{url}/v1/files/a", data=io.BytesIO(data)) as answer:
        assert answer.status == 201
    parts = [(0, 0), (CHUNK_BYTES - 1, CHUNK_BYTES), (CHUNK_BYTES - 5, 2 * CHUNK_BYTES + 5), (size - 1, size + 100),
             (1, size - 2)]  # fmt: skip
    for first, last in parts:
        async with http.get(f"{url}/v1/files/a", headers={"Range": f"bytes={first}-{last}"}) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Range"] == f"bytes {first}-{min(last, size - 1)}/{size}"
            assert await answer.read() == data[first : last + 1]
    async with http.get(f"{url}/v1/files/a", headers={"Range": f"bytes={size}-"}) as answer:
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{size}")
        assert (await answer.json())["code"] == "range_not_satisfiable"
    async with http.get(f"{url}/v1/files/a", headers={"Range": "bytes=x"}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "invalid_request")
