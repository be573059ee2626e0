"""How a command is refused: checks raise Refused before anything is written, and the machine makes it a result."""

from __future__ import annotations

import re
from collections.abc import Mapping

from raftfs import limits, paths
from raftfs.errors import InvalidPath
from raftfs.state.commands import Code, UploadState

# Only ASCII is looked at: Unicode tables differ between Python versions, and nodes must agree.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Refused(Exception):
    """The user's mistake, or a precondition that does not hold. Nothing was written."""

    def __init__(self, code: Code, detail: str, upload: UploadState | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.upload = upload


def check_path(path: str) -> None:
    """Refuse a path that is not in normal form."""
    try:
        normal = paths.normalize(path)
    except InvalidPath as error:
        raise Refused(Code.INVALID, error.detail) from None
    if normal != path:
        raise Refused(Code.INVALID, f"path {path!r} is not in its normal form {normal!r}")


def check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise Refused(Code.INVALID, f"{what} is {value}, must be from {low} to {high}")


def check_metadata(metadata: Mapping[str, str | None]) -> None:
    if not metadata:
        return
    if len(metadata) > limits.METADATA_KEYS_MAX:
        raise Refused(
            Code.INVALID, f"metadata has {len(metadata)} keys, at most {limits.METADATA_KEYS_MAX} are allowed"
        )
    size = sum(len(key.encode()) + len((value or "").encode()) for key, value in metadata.items())
    if size > limits.METADATA_BYTES_MAX:
        raise Refused(Code.INVALID, f"metadata has {size} bytes, at most {limits.METADATA_BYTES_MAX} are allowed")
    if "" in metadata:
        raise Refused(Code.INVALID, "metadata has an empty key")


def check_content_type(content_type: str) -> None:
    size = len(content_type.encode())
    if size > limits.CONTENT_TYPE_BYTES_MAX:
        raise Refused(
            Code.INVALID, f"content type has {size} bytes, at most {limits.CONTENT_TYPE_BYTES_MAX} are allowed"
        )
    if _CONTROL.search(content_type):
        raise Refused(Code.INVALID, f"content type {content_type!r} contains a control character")
