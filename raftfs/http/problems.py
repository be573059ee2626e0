"""Errors as RFC 9457 problems, and plain JSON answers.

A write's problem always says its outcome. Where the error does not know it, the status decides, on the side of
caution: what was refused (4xx) or could not be taken on (503, 507) was not applied, anything else is unknown.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from aiohttp import web

from raftfs.errors import Outcome, RaftfsError
from raftfs.http import names

_encode = msgspec.json.Encoder().encode

PROBLEM_TYPE = "application/problem+json"


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Anything that msgspec encodes, as application/json."""
    return web.Response(body=_encode(value), status=status, headers=headers, content_type="application/json")


def outcome_of(error: RaftfsError, status: int) -> Outcome:
    """What a write that ended with ``error`` did."""
    if error.outcome is not None:
        return error.outcome
    return "not_applied" if status < 500 or status in (503, 507) else "unknown"


def problem_response(
    error: RaftfsError, *, write: bool, status: int | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    """The answer for an error. ``status`` overrides the error's own (a failed If-None-Match is 412 whatever it met)."""
    status = status or error.status
    problem: dict[str, Any] = {
        "type": f"urn:raftfs:problem:{error.code}",
        "title": error.title,
        "status": status,
        # It may quote a header that is no UTF-8.
        "detail": error.detail.encode("utf-8", "backslashreplace").decode(),
        "code": error.code,
    }
    # HEAD has no body, so the code travels in a header as well.
    all_headers = {names.ERROR: error.code, "Cache-Control": "no-store", **(headers or {})}
    if write:
        problem["outcome"] = all_headers[names.OUTCOME] = outcome_of(error, status)
    if status == 503:
        all_headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s or 1)))
        if error.retry_after_s is not None:
            all_headers[names.RETRY_AFTER_MS] = str(round(error.retry_after_s * 1000))
    return web.Response(body=_encode(problem), status=status, headers=all_headers, content_type=PROBLEM_TYPE)
