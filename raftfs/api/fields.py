"""Headers of requests and answers that carry a file's own properties."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from multidict import CIMultiDict

from raftfs import limits, paths
from raftfs.errors import InvalidRequest, TooLarge
from raftfs.http import names
from raftfs.state.commands import Stat

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DIGEST: Final = re.compile(r"\s*([a-z][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):\s*")
# What a metadata value may hold as it is in a header: visible ASCII without "%".
_VALUE_SAFE: Final = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}~"
_KEY_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.!#$&'*+^`|~")
_PREFIX: Final = names.META_PREFIX.lower()


def entry(stat: Stat) -> dict[str, Any]:
    """The JSON shape of a file or directory (``raftfs.models.Entry``)."""
    return {
        "path": stat.path,
        "name": "" if stat.path == paths.ROOT else stat.path.rpartition("/")[2],
        "type": "directory" if stat.is_directory else "file",
        "size": stat.size,
        "revision": stat.revision,
        "created_ms": stat.created_ms,
        "modified_ms": stat.modified_ms,
        "content_type": stat.content_type,
        "metadata": stat.metadata,
    }


def stat_headers(stat: Stat) -> CIMultiDict[str]:
    """What HEAD tells of a file or directory."""
    headers = CIMultiDict(
        {
            "ETag": names.etag(stat.revision),
            "Last-Modified": formatdate(stat.modified_ms // 1000, usegmt=True),
            names.ENTRY_TYPE: "directory" if stat.is_directory else "file",
            names.CREATED_MS: str(stat.created_ms),
            names.MODIFIED_MS: str(stat.modified_ms),
        }
    )
    for key, value in stat.metadata.items():
        headers[names.META_PREFIX + _quote_key(key)] = quote(value, safe=_VALUE_SAFE)
    return headers


def _quote_key(key: str) -> str:
    """A key as part of a header name: what a name may not hold, and capitals (names have no case), as %XX."""
    return "".join(c if c in _KEY_SAFE else "".join(f"%{byte:02x}" for byte in c.encode()) for c in key)


def parse_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """Metadata from Raftfs-Meta-* headers. Raises InvalidRequest, TooLarge."""
    metadata: dict[str, str] = {}
    for name, value in headers.items():
        if len(name) < len(_PREFIX) or name[: len(_PREFIX)].lower() != _PREFIX:
            continue
        key = _unquote(name[len(_PREFIX) :].lower(), name)
        if key in metadata:
            raise InvalidRequest(f"header {name} is there twice")
        metadata[key] = _unquote(value, name)
    if metadata:
        check_metadata(metadata)
    return metadata


def check_metadata(metadata: Mapping[str, str | None]) -> None:
    """Raises TooLarge over the limits, InvalidRequest for a key that is empty or text that is not UTF-8."""
    if len(metadata) > limits.METADATA_KEYS_MAX:
        raise TooLarge(f"{len(metadata)} metadata keys, at most {limits.METADATA_KEYS_MAX} are allowed")
    size = 0
    for key, value in metadata.items():
        if not key:
            raise InvalidRequest("a metadata key is empty")
        try:
            size += len(key.encode()) + len((value or "").encode())
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"metadata {key!r} is not UTF-8: {error.reason}") from None
    if size > limits.METADATA_BYTES_MAX:
        raise TooLarge(f"the metadata is {size} bytes long, at most {limits.METADATA_BYTES_MAX} are allowed")


def _unquote(text: str, name: str) -> str:
    if "%" not in text and text.isascii():
        return text
    if _BAD_ESCAPE.search(text):
        raise InvalidRequest(f"header {name} has a '%' that is not followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"header {name} is not UTF-8: {error.reason}") from None


def parse_content_type(headers: Mapping[str, str]) -> str | None:
    """The Content-Type to store, None if there is none. Raises InvalidRequest."""
    text = headers.get("Content-Type")
    if text is None:
        return None
    return check_content_type(text)


def check_content_type(text: str) -> str:
    """Raises InvalidRequest for a content type that could not be sent back in a header."""
    if len(text) > limits.CONTENT_TYPE_BYTES_MAX or not text.isascii() or not text.isprintable() or not text.strip():
        raise InvalidRequest(
            f"the content type is not 1 to {limits.CONTENT_TYPE_BYTES_MAX} printable ASCII characters: {text[:80]!r}"
        )
    return text


def parse_digest(headers: Mapping[str, str]) -> bytes | None:
    """SHA-256 (32 bytes) that the content must have, from Repr-Digest (RFC 9530). Raises InvalidRequest."""
    text = headers.get(names.REPR_DIGEST)
    if text is None:
        return None
    for item in text.split(","):
        match = _DIGEST.fullmatch(item)
        if match is None:
            raise InvalidRequest(f"{names.REPR_DIGEST}: {text!r} is not like sha-256=:BASE64:")
        if match[1] != "sha-256":
            continue
        try:
            digest = base64.b64decode(match[2], validate=True)
        except binascii.Error as error:
            raise InvalidRequest(f"{names.REPR_DIGEST}: {error}") from None
        if len(digest) != 32:
            raise InvalidRequest(f"{names.REPR_DIGEST}: a SHA-256 is 32 bytes long, not {len(digest)}")
        return digest
    raise InvalidRequest(f"{names.REPR_DIGEST} names no sha-256, the one algorithm that is verified here")


def parse_key(headers: Mapping[str, str]) -> str | None:
    """The idempotency key. Raises InvalidRequest."""
    key = headers.get(names.IDEMPOTENCY_KEY)
    if key is not None and not (1 <= len(key) <= limits.IDEMPOTENCY_KEY_BYTES_MAX and key.isascii()):
        raise InvalidRequest(
            f"{names.IDEMPOTENCY_KEY} is not 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} ASCII characters long"
        )
    return key
