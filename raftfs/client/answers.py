"""From HTTP answers to models and errors. Nothing that a server sends is trusted to fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, ValidationError

from raftfs import errors, paths
from raftfs.errors import BadAnswer, RaftfsError
from raftfs.models import Entry, Problem

Model = TypeVar("Model", bound=BaseModel)

_ETAG = re.compile(r'"r([0-9]+)"')

_BY_STATUS: dict[int, type[RaftfsError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    408: errors.DeadlineExceeded,
    409: errors.Conflict,
    412: errors.PreconditionFailed,
    413: errors.TooLarge,
    416: errors.RangeNotSatisfiable,
    422: errors.InvalidRequest,
    429: errors.Overloaded,
    431: errors.TooLarge,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
    507: errors.StorageFull,
}


def parse(model: type[Model], body: bytes, url: str) -> Model:
    """Body of an answer as a model. Raises BadAnswer saying what came instead."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise BadAnswer(f"{url} answered with what is not a {model.__name__} ({where}: {first['msg']})") from None


def error_of(status: int, headers: Mapping[str, str], body: bytes, url: str) -> RaftfsError:
    """The error that an answer carries: by the problem's ``code``, by the status if there is none that is known."""
    finer_ms = _retry_after_s(headers.get("Raftfs-Retry-After-Ms"))
    retry_after_s = _retry_after_s(headers.get("Retry-After")) if finer_ms is None else finer_ms / 1000
    try:
        problem = Problem.model_validate_json(body)
    except ValidationError:
        if status < 400:
            return BadAnswer(f"{url} answered with the unexpected status {status}: is this the URL of a raftfs server?")
        if (ours := errors.BY_CODE.get(headers.get("Raftfs-Error", ""))) is not None:
            # The answer to a HEAD has no body; its code is in a header.
            return ours(f"{ours.title} ({url} answered {status})", retry_after_s=retry_after_s)
        known = _BY_STATUS.get(status, RaftfsError)
        return known(f"{url} answered {status}{_hint(headers, body)}", retry_after_s=retry_after_s)
    known = errors.BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status, RaftfsError)
    return known(problem.detail or problem.title, outcome=problem.outcome, retry_after_s=retry_after_s)


def _hint(headers: Mapping[str, str], body: bytes) -> str:
    """A little of a foreign answer, so that one sees who is talking."""
    if not body or not headers.get("Content-Type", "text/plain").startswith("text/plain"):
        return ""
    text = " ".join(body[:200].decode("utf-8", "replace").split())
    return f": {text}" if text else ""


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a Retry-After header. A date is not used: it would need both clocks to agree."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None


def revision_of(headers: Mapping[str, str], url: str) -> int:
    """``Raftfs-Revision`` of an answer. Raises BadAnswer if it is missing or not a number."""
    value = headers.get("Raftfs-Revision", "")
    if not value.isascii() or not value.isdecimal():
        raise BadAnswer(f"{url} answered without a valid Raftfs-Revision header ({value!r})")
    return int(value)


def etag_of(headers: Mapping[str, str], url: str) -> str:
    """Strong ``ETag`` of an answer. Raises BadAnswer if there is none."""
    value = headers.get("ETag", "")
    if len(value) < 3 or not (value.startswith('"') and value.endswith('"')):
        raise BadAnswer(f"{url} answered without a strong ETag header ({value!r})")
    return value


def entry_of(path: str, headers: Mapping[str, str], url: str) -> Entry:
    """What the answer to a HEAD says about the normal path. Raises BadAnswer if that is not complete."""
    kind = headers.get("Raftfs-Type")
    try:
        revision = _ETAG.fullmatch(etag_of(headers, url))
        if revision is None:
            raise ValueError("ETag")
        return Entry(
            path=path,
            name="" if path == paths.ROOT else paths.split(path)[1],
            type="directory" if kind == "directory" else "file",
            size=0 if kind == "directory" else int(headers["Content-Length"]),
            revision=int(revision[1]),
            created_ms=int(headers["Raftfs-Created-Ms"]),
            modified_ms=int(headers["Raftfs-Modified-Ms"]),
            content_type=None if kind == "directory" else headers.get("Content-Type"),
            metadata=_metadata_of(headers),
        )
    except (KeyError, ValueError) as error:
        raise BadAnswer(f"{url} answered without the headers of a raftfs file ({error})") from None


def _metadata_of(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "raftfs-meta-"
    found = ((name.lower(), value) for name, value in headers.items())
    return {unquote(name[len(prefix) :]): unquote(value) for name, value in found if name.startswith(prefix)}
