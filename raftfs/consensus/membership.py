"""Who the members are: configurations, and what may follow what.

A configuration is an entry of the log. The newest one in a node's log counts, committed or not (Raft dissertation,
section 4.1), so a follower that removes an entry falls back to the one before. Between two configurations at most one
voting member comes or goes: then any two majorities, of the old one and of the new one, have a member in common, and
no joint consensus is needed. Members that do not vote (learners) receive the log and count for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from raftfs.decoding import UNDECODABLE
from raftfs.limits import MEMBERS_MAX

CONFIGURATION: Final = 0x11
"""First byte of an entry that holds a configuration; a type that PySyncObj does not know and leaves alone."""


class MemberRecord(msgspec.Struct, frozen=True, array_like=True):
    """One member. ``peer``: ``host:port``; ``uuid``: of its data directory, empty until it was seen; a ``voter``
    counts for majorities."""

    id: str
    peer: str
    url: str
    uuid: str = ""
    voter: bool = True


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """All members, in the order in which they came."""

    members: tuple[MemberRecord, ...]

    @classmethod
    def of(cls, ids: Iterable[str]) -> Configuration:
        """Voting members of these names alone, where nobody needs addresses."""
        return cls(tuple(MemberRecord(id_, "", "") for id_ in sorted(ids)))

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(member.id for member in self.members)

    @property
    def voters(self) -> frozenset[str]:
        return frozenset(member.id for member in self.members if member.voter)

    def get(self, name: str) -> MemberRecord | None:
        return next((member for member in self.members if member.id == name), None)

    def with_member(self, record: MemberRecord) -> Configuration:
        """With this record in the place of the one of its id, or behind all others."""
        if record.id not in self.ids:
            return Configuration((*self.members, record))
        return Configuration(tuple(record if member.id == record.id else member for member in self.members))

    def without(self, name: str) -> Configuration:
        return Configuration(tuple(member for member in self.members if member.id != name))


_decoder = msgspec.msgpack.Decoder(Configuration)


def encode_configuration(configuration: Configuration) -> bytes:
    """As an entry's bytes."""
    return bytes([CONFIGURATION]) + msgspec.msgpack.encode(configuration)


def decode_configuration(data: bytes) -> Configuration:
    """From an entry's bytes. Raises ValueError if they hold no configuration that a leader could have proposed."""
    if data[:1] != bytes([CONFIGURATION]):
        raise ValueError(f"an entry of type {data[:1]!r} holds no configuration")
    try:
        found = _decoder.decode(data[1:])
    except UNDECODABLE as error:
        raise ValueError(f"not a configuration: {error}") from None
    if len(found.ids) != len(found.members) or len(found.members) > MEMBERS_MAX or not found.voters:
        raise ValueError(f"{len(found.members)} members, {len(found.voters)} of them vote: not a configuration")
    return found


def check_step(old: Configuration, new: Configuration) -> None:
    """Raises ValueError if ``new`` may not follow ``old``."""
    if len(new.ids) != len(new.members):
        raise ValueError("two members have the same id")
    if len(new.members) > MEMBERS_MAX:
        raise ValueError(f"a cluster has at most {MEMBERS_MAX} members")
    if not new.voters:
        raise ValueError("a cluster needs a voting member")
    changed = old.voters ^ new.voters
    if len(changed) > 1:
        raise ValueError(f"one voting member may come or go at a time, not {', '.join(sorted(changed))}")
    for name in old.voters & new.voters:
        before, after = old.get(name), new.get(name)
        assert before is not None
        assert after is not None
        if before.uuid and before.uuid != after.uuid:
            # Another data directory knows nothing of the votes and acknowledgements that were given under this name.
            raise ValueError(f"{name} votes, so its data directory cannot become another one")
