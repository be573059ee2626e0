"""Whether two members can work together: what each says of itself in the greeting, compared, sans-IO."""

from __future__ import annotations

import msgspec

from raftfs.versions import FORMAT_VERSION, FORMAT_VERSION_MIN, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, UNDECIDED


class Versions(msgspec.Struct, frozen=True):
    """What a member's code speaks and understands, and the ``format`` that is active in its database."""

    protocol_min: int
    protocol_max: int
    format_min: int
    format_max: int
    format: int


def our_versions(format: int = UNDECIDED) -> Versions:
    """What this code says of itself."""
    return Versions(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION, FORMAT_VERSION_MIN, FORMAT_VERSION, format)


def disagreement(me: str, mine: Versions, other: str, theirs: Versions) -> str | None:
    """Why these two members cannot work together, naming who has to be upgraded; None if they can.

    The format of the cluster is the newer one of the two databases', because a database only ever falls behind.
    """
    if mine.protocol_min > theirs.protocol_max or theirs.protocol_min > mine.protocol_max:
        return (
            f"{me} speaks peer protocol {_range(mine.protocol_min, mine.protocol_max)}, {other} "
            f"{_range(theirs.protocol_min, theirs.protocol_max)}: upgrade {_older(me, mine, other, theirs)}"
        )
    active = max(mine.format, theirs.format)
    for name, versions in ((me, mine), (other, theirs)):
        understood = _range(versions.format_min, versions.format_max)
        if active > versions.format_max:
            return (
                f"the cluster has switched to format {active}, and the raftfs of {name} understands {understood}: "
                f"install one there that understands format {active}"
            )
        if active != UNDECIDED and active < versions.format_min:
            return (
                f"the cluster has format {active}, and the raftfs of {name} understands {understood}: "
                f"upgrade the cluster to format {versions.format_min} first"
            )
    if mine.format_min > theirs.format_max or theirs.format_min > mine.format_max:
        return (
            f"{me} understands format {_range(mine.format_min, mine.format_max)}, {other} "
            f"{_range(theirs.format_min, theirs.format_max)}: upgrade {_older(me, mine, other, theirs)}"
        )
    return None


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _older(me: str, mine: Versions, other: str, theirs: Versions) -> str:
    return me if (mine.protocol_max, mine.format_max) < (theirs.protocol_max, theirs.format_max) else other
