"""Byte ranges (RFC 9110, section 14)."""

from __future__ import annotations

import re
from typing import Final

from raftfs.errors import InvalidRequest, RangeNotSatisfiable

_SPEC: Final = re.compile(r"[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*")


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """The part [start, stop) of ``size`` bytes that a Range header asks for; None for all of it.

    Units other than bytes are ignored, and several ranges are answered with the whole file, as the RFC allows. Raises
    InvalidRequest for what is no range, RangeNotSatisfiable for one outside the file.
    """
    if text is None:
        return None
    unit, equals, specs = text.partition("=")
    if not equals:
        raise InvalidRequest(f"Range: {text!r} is not like bytes=0-99, bytes=100- or bytes=-100")
    if unit.strip().lower() != "bytes":
        return None
    ranges = [_parse_spec(spec, text) for spec in specs.split(",") if spec.strip()]
    if not ranges:
        raise InvalidRequest(f"Range: {text!r} names no range")
    if len(ranges) > 1:
        return None
    start, last = ranges[0]
    if start is None:
        assert last is not None
        if last == 0 or size == 0:
            raise RangeNotSatisfiable(f"the last {last} bytes of a file of {size} bytes are nothing")
        return max(0, size - last), size
    if start >= size:
        raise RangeNotSatisfiable(f"the range begins at byte {start}, the file has {size} bytes")
    return start, size if last is None else min(last + 1, size)


def _parse_spec(spec: str, text: str) -> tuple[int | None, int | None]:
    """(first, last); first None for a suffix of ``last`` bytes."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise InvalidRequest(f"Range: {text!r} has {spec.strip()!r}, which is not like 0-99, 100- or -100")
    if match[3] is not None:
        return None, int(match[3])
    first, last = int(match[1]), int(match[2]) if match[2] else None
    if last is not None and last < first:
        raise InvalidRequest(f"Range: {text!r} ends before it begins")
    return first, last
