"""Conditional requests: the matrix of RFC 9110, section 13."""

from __future__ import annotations

from email.utils import formatdate

import aiohttp
import pytest

from raftfs.api.conditions import matches, parse_tags, write_if_match
from raftfs.errors import InvalidRequest, PreconditionFailed

OTHER, WEAK_OTHER, FOREIGN = '"r999999"', 'W/"r999999"', '"abc"'


async def put(http: aiohttp.ClientSession, url: str, data: bytes = b"0123456789", **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.put(f"{url}/v1/files/a", data=data, headers=named) as answer:
        return answer.status, answer.headers.get("ETag", answer.headers.get("Raftfs-Error", ""))


async def test_reads(url: str, http: aiohttp.ClientSession) -> None:
    _, tag = await put(http, url)
    past, future = formatdate(0, usegmt=True), formatdate(4e9, usegmt=True)
    matrix = [
        ({}, 200),
        ({"If-Match": tag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": f"{OTHER}, {tag}"}, 200),
        ({"If-Match": OTHER}, 412),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Match": "nonsense"}, 400),
        ({"If-None-Match": tag}, 304),
        ({"If-None-Match": f"W/{tag}"}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": f"{WEAK_OTHER},{FOREIGN} , {tag}"}, 304),
        ({"If-None-Match": OTHER}, 200),
        ({"If-Match": OTHER, "If-None-Match": tag}, 412),
        ({"If-Match": tag, "If-None-Match": tag}, 304),
        ({"If-Modified-Since": future}, 304),
        ({"If-Modified-Since": past}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-None-Match": OTHER, "If-Modified-Since": future}, 200),
        ({"If-Unmodified-Since": past}, 412),
        ({"If-Unmodified-Since": future}, 200),
        ({"If-Match": tag, "If-Unmodified-Since": past}, 200),
    ]
    for method in ("GET", "HEAD"):
        for headers, status in matrix:
            async with http.request(method, f"{url}/v1/files/a", headers=headers) as answer:
                assert (answer.status, method, headers) == (status, method, headers)
                if status == 304:
                    assert answer.headers["ETag"] == tag
                    assert await answer.read() == b""


async def test_if_range(url: str, http: aiohttp.ClientSession) -> None:
    _, tag = await put(http, url)
    async with http.get(f"{url}/v1/files/a") as answer:
        modified = answer.headers["Last-Modified"]
    for validator, status in ((tag, 206), (OTHER, 200), (f"W/{tag}", 200), (modified, 200)):
        headers = {"Range": "bytes=2-4", "If-Range": validator}
        async with http.get(f"{url}/v1/files/a", headers=headers) as answer:
            assert (answer.status, await answer.read()) == (status, b"234" if status == 206 else b"0123456789")


async def test_writes(url: str, http: aiohttp.ClientSession) -> None:
    assert await put(http, url, If_Match='"r1"') == (412, "precondition_failed")
    status, first = await put(http, url, If_None_Match="*")
    assert status == 201
    assert (await put(http, url, If_None_Match="*"))[0] == 412
    assert await put(http, url, If_Match=OTHER) == (412, "precondition_failed")
    assert await put(http, url, If_Match=f"W/{first}") == (412, "precondition_failed")
    assert await put(http, url, If_Match=FOREIGN) == (412, "precondition_failed")
    status, second = await put(http, url, If_Match=f"{FOREIGN}, {first}")
    assert status == 200
    assert await put(http, url, If_Match=first) == (412, "precondition_failed")
    assert await put(http, url, data=b"x" * 100_000, If_Match=first) == (412, "precondition_failed")
    for refused in ({"If_Match": "*"}, {"If_Match": f"{first}, {second}"}, {"If_None_Match": second},
                    {"If_Unmodified_Since": formatdate(usegmt=True)}, {"If_Match": "r1"}):  # fmt: skip
        assert await put(http, url, b"x", **refused) == (400, "invalid_request")
    async with http.get(f"{url}/v1/files/a") as answer:
        assert answer.headers["ETag"] == second


async def test_removal_and_patches(url: str, http: aiohttp.ClientSession) -> None:
    async with http.delete(f"{url}/v1/files/a", headers={"If-Match": "*"}) as answer:
        assert answer.status == 412
    _, tag = await put(http, url)
    async with http.patch(f"{url}/v1/files/a", json={"metadata": {"a": "b"}}, headers={"If-Match": OTHER}) as answer:
        assert answer.status == 412
    async with http.patch(f"{url}/v1/files/a", json={"metadata": {"a": "b"}}, headers={"If-Match": tag}) as answer:
        assert answer.status == 200
        newer = answer.headers["ETag"]
        assert newer != tag
    for headers, status in (({"If-Match": tag}, 412), ({"If-None-Match": "*"}, 400), ({"If-Match": newer}, 204)):
        async with http.delete(f"{url}/v1/files/a", headers=headers) as answer:
            assert (answer.status, headers) == (status, headers)


async def test_making_a_directory_that_must_be_new(url: str, http: aiohttp.ClientSession) -> None:
    for status in (201, 412):
        async with http.put(f"{url}/v1/dirs/d", headers={"If-None-Match": "*"}) as answer:
            assert answer.status == status


def test_lists_of_tags() -> None:
    assert parse_tags("If-Match", " * ") is None
    assert parse_tags("If-Match", 'W/"a" , "", "b,c"') == [(True, '"a"'), (False, '""'), (False, '"b,c"')]
    for wrong in ("", "r1", '"a" "b"', '"a",', 'w/"a"', '"a'):
        with pytest.raises(InvalidRequest):
            parse_tags("If-Match", wrong)
    assert not matches("If-None-Match", '"r12"', '"r1"', weakly=True)


def test_if_match_of_writes() -> None:
    assert write_if_match({}) == (False, None)
    assert write_if_match({"If-Match": "*"}) == (True, None)
    assert write_if_match({"If-Match": '"r7", W/"r8", "x"'}) == (True, 7)
    with pytest.raises(PreconditionFailed):
        write_if_match({"If-Match": '"r07"'})
