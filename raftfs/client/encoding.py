"""From calls to the parts of an HTTP request: targets, query parameters and headers. Wrong values are refused here."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

from raftfs import paths
from raftfs.errors import InvalidRequest
from raftfs.models import Consistency

_KEY_UNSAFE = re.compile(r"[^a-z0-9._-]")
_CONSISTENCIES = ("linearizable", "bounded", "stale")


def file_target(path: str) -> str:
    """Request target of a file. Raises InvalidPath before anything is sent."""
    return "/v1/files" + _quoted(path)


def directory_target(path: str) -> str:
    """Request target of a directory."""
    return "/v1/dirs" + _quoted(path)


def _quoted(path: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in paths.components(paths.normalize(path)))


def etag(revision: int) -> str:
    """The ETag of a file's version."""
    return f'"r{revision}"'


def read_query(consistency: Consistency, max_staleness: float | None, revision: int | None) -> dict[str, str]:
    """Query parameters that say how current a read must be; the default is left out."""
    if consistency not in _CONSISTENCIES:
        raise InvalidRequest(f"consistency must be one of {', '.join(_CONSISTENCIES)}, not {consistency!r}")
    query: dict[str, str] = {}
    if consistency != "linearizable":
        query["consistency"] = consistency
    if max_staleness is not None:
        if consistency != "bounded":
            raise InvalidRequest("max_staleness belongs to consistency='bounded'")
        query["max_staleness"] = f"{max_staleness:g}"
    if revision is not None:
        query["revision"] = str(revision)
    return query


def flags(**values: bool) -> dict[str, str]:
    """Query parameters of the flags that are set."""
    return {name: "true" for name, value in values.items() if value}


def precondition(if_match: int | None, if_absent: bool = False) -> dict[str, str]:
    """Headers of a write's precondition."""
    if if_absent and if_match is not None:
        raise InvalidRequest("if_absent and if_match exclude each other")
    if if_absent:
        return {"If-None-Match": "*"}
    return {} if if_match is None else {"If-Match": etag(if_match)}


def content(content_type: str | None, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Headers that describe a file. Of metadata, what a header cannot hold goes as ``%XX``."""
    headers: dict[str, str] = {}
    if content_type is not None:
        if not content_type.isascii() or not content_type.isprintable() or not content_type.strip():
            raise InvalidRequest(f"content_type must be printable ASCII, not {content_type!r}")
        headers["Content-Type"] = content_type
    for key, value in (metadata or {}).items():
        try:
            headers["Raftfs-Meta-" + _KEY_UNSAFE.sub(_escape, key)] = quote(value, safe="")
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"metadata {key!r} is not valid UTF-8: {error.reason}") from None
        if not key:
            raise InvalidRequest("a metadata key is empty")
    return headers


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in match[0].encode())


async def digest(chunks: AsyncIterator[bytes]) -> dict[str, str]:
    """``Repr-Digest`` (RFC 9530) of a body: reads it through once."""
    sha = hashlib.sha256()
    async for chunk in chunks:
        sha.update(chunk)
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(sha.digest()).decode()}:"}
