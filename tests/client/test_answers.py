"""What answers become: models, and one class for each code."""

from __future__ import annotations

import json

import pytest

from raftfs import errors
from raftfs.client import answers
from raftfs.models import Entry

URL = "http://node"


def problem(code: str, status: int, **fields: object) -> bytes:
    return json.dumps(
        {"type": "about:blank", "title": "Title", "status": status, "detail": "why", "code": code, **fields}
    ).encode()


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_every_code_becomes_its_own_class(code: str) -> None:
    known = errors.BY_CODE[code]
    body = problem(code, known.status, outcome="not_applied")
    error = answers.error_of(known.status, {"Retry-After": "3"}, body, URL)
    assert type(error) is known
    assert (error.detail, error.outcome, error.retry_after_s) == ("why", "not_applied", 3.0)


@pytest.mark.parametrize(
    ("status", "known"),
    [
        (400, errors.InvalidRequest),
        (401, PermissionError),
        (404, FileNotFoundError),
        (409, errors.Conflict),
        (412, errors.PreconditionFailed),
        (413, errors.TooLarge),
        (416, errors.RangeNotSatisfiable),
        (422, errors.InvalidRequest),
        (429, errors.Overloaded),
        (500, errors.RaftfsError),
        (502, errors.Unavailable),
        (503, ConnectionError),
        (504, TimeoutError),
        (507, errors.StorageFull),
        (599, errors.RaftfsError),
    ],
)
def test_unknown_codes_and_foreign_answers_go_by_status(status: int, known: type[Exception]) -> None:
    assert isinstance(answers.error_of(status, {}, problem("from_the_future", status), URL), known)
    foreign = answers.error_of(status, {"Content-Type": "text/plain"}, b"some proxy\nis down", URL)
    assert isinstance(foreign, known)
    assert "some proxy is down" in foreign.detail
    assert URL in foreign.detail


def test_the_code_of_an_answer_without_a_body_is_in_a_header() -> None:
    error = answers.error_of(409, {"Raftfs-Error": "is_a_directory"}, b"", URL)
    assert isinstance(error, IsADirectoryError)


def test_success_that_was_not_expected_is_said_to_be_strange() -> None:
    error = answers.error_of(302, {}, b"", URL)
    assert isinstance(error, errors.BadAnswer)
    assert "302" in error.detail


@pytest.mark.parametrize("value", ["", "x", "-1", "inf", "nan", "Wed, 21 Oct 2015 07:28:00 GMT", "1e9"])
def test_a_retry_after_that_makes_no_sense_is_ignored(value: str) -> None:
    assert answers.error_of(503, {"Retry-After": value}, b"", URL).retry_after_s is None


def test_a_finer_retry_after_is_preferred() -> None:
    headers = {"Retry-After": "1", "Raftfs-Retry-After-Ms": "50"}
    assert answers.error_of(503, headers, b"", URL).retry_after_s == 0.05


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"path": 3}', b"\xff\xfe"])
def test_a_body_that_does_not_fit_is_named(body: bytes) -> None:
    with pytest.raises(errors.BadAnswer, match=r"http://node answered with what is not a Entry"):
        answers.parse(Entry, body, URL)


@pytest.mark.parametrize("headers", [{}, {"Raftfs-Revision": "-1"}, {"Raftfs-Revision": "x"}, {"Raftfs-Revision": "٣"}])
def test_a_revision_must_be_a_number(headers: dict[str, str]) -> None:
    with pytest.raises(errors.BadAnswer, match="Raftfs-Revision"):
        answers.revision_of(headers, URL)


@pytest.mark.parametrize("etag", ["", "r5", 'W/"r5"', '"'])
def test_an_etag_must_be_strong(etag: str) -> None:
    with pytest.raises(errors.BadAnswer, match="ETag"):
        answers.etag_of({"ETag": etag}, URL)


def test_a_head_without_the_headers_of_a_file_is_no_file() -> None:
    with pytest.raises(errors.BadAnswer, match="without the headers"):
        answers.entry_of("/f", {"ETag": '"r5"', "Content-Length": "3"}, URL)
