"""Conditional requests (RFC 9110, section 13) over one kind of validator: the strong ETag ``"r<revision>"``.

For reads the conditions are evaluated here. For writes they become arguments of the command, because only the state
machine can check them at the moment of the change; what it cannot check is refused and never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from raftfs.errors import InvalidRequest, PreconditionFailed
from raftfs.http.names import etag
from raftfs.state.commands import Stat

_TAG: Final = re.compile(r'\s*(W/)?("[\x21\x23-\x7e\x80-\U0010ffff]*")\s*')
_OURS: Final = re.compile(r'"r([1-9][0-9]{0,18})"')

Headers = Mapping[str, str]


def parse_tags(name: str, text: str) -> list[tuple[bool, str]] | None:
    """A list of entity tags as (weak, tag with quotes); None for ``*``. Raises InvalidRequest if it is no list."""
    if text.strip() == "*":
        return None
    tags, position = [], 0
    while True:
        match = _TAG.match(text, position)
        if match is None:
            raise InvalidRequest(f'{name}: {text!r} is not a list of ETags like "r12"')
        tags.append((match[1] is not None, match[2]))
        position = match.end()
        if position == len(text):
            return tags
        if text[position] != ",":
            raise InvalidRequest(f"{name}: {text!r} has no comma after {match[2]}")
        position += 1


def matches(name: str, text: str, tag: str, *, weakly: bool) -> bool:
    """Whether ``tag`` is in the list. Strong comparison (If-Match) never matches a weak tag."""
    tags = parse_tags(name, text)
    return tags is None or any(other == tag and (weakly or not weak) for weak, other in tags)


def last_modified(modified_ms: int) -> datetime:
    """HTTP dates have whole seconds."""
    return datetime.fromtimestamp(modified_ms // 1000, UTC)


def check_read(headers: Headers, stat: Stat) -> bool:
    """Whether the content is to be sent; False means 304. Raises PreconditionFailed, InvalidRequest."""
    tag = etag(stat.revision)
    if (text := headers.get("If-Match")) is not None:
        if not matches("If-Match", text, tag, weakly=False):
            raise PreconditionFailed(f"{stat.path} has ETag {tag}, which is not in If-Match: {text}")
    elif (date := _date(headers.get("If-Unmodified-Since"))) is not None and last_modified(stat.modified_ms) > date:
        raise PreconditionFailed(f"{stat.path} was modified after {date:%a, %d %b %Y %H:%M:%S} GMT")
    if (text := headers.get("If-None-Match")) is not None:
        return not matches("If-None-Match", text, tag, weakly=True)
    date = _date(headers.get("If-Modified-Since"))
    return date is None or last_modified(stat.modified_ms) > date


def range_applies(headers: Headers, stat: Stat) -> bool:
    """Whether If-Range allows a partial answer. A date never does: it cannot tell two changes in one second apart."""
    text = headers.get("If-Range")
    return text is None or text.strip() == etag(stat.revision)


def write_if_match(headers: Headers) -> tuple[bool, int | None]:
    """If-Match of a write as (must exist, revision it must have). Raises PreconditionFailed if no version can match.

    Two or more ETags are refused: which of them held could not be told again to a client that repeats the request.
    """
    refuse_dates(headers)
    text = headers.get("If-Match")
    if text is None:
        return False, None
    tags = parse_tags("If-Match", text)
    if tags is None:
        return True, None
    revisions = {int(ours[1]) for weak, tag in tags if not weak and (ours := _OURS.fullmatch(tag))}
    if not revisions:
        raise PreconditionFailed(f'no version has an ETag of If-Match: {text} (ours are strong, like "r12")')
    if len(revisions) > 1:
        raise InvalidRequest("If-Match of a write may name one version; send the ETag that you have seen last")
    return True, revisions.pop()


def write_if_absent(headers: Headers) -> bool:
    """If-None-Match of a write: only ``*``, which means that nothing may be there. Raises InvalidRequest."""
    text = headers.get("If-None-Match")
    if text is None:
        return False
    if parse_tags("If-None-Match", text) is not None:
        raise InvalidRequest("If-None-Match of a write can only be *")
    return True


def refuse_dates(headers: Headers) -> None:
    """Dates cannot be checked at the moment of a change, so a write that relies on one is refused."""
    for name in ("If-Unmodified-Since", "If-Modified-Since"):
        if name in headers:
            raise InvalidRequest(f"{name} is not supported on writes; use If-Match with the ETag")


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None  # RFC 9110 wants an invalid date ignored
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
