"""What can go wrong in the simulation, to see that all of it does: ``Report.seen`` counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from raftfs.testing.simulation.simulation import Report

KINDS: Final = {
    "break wire": "a connection breaks",
    "connection: half open": "one end learns of it seconds later",
    "message: lost": "with its connection",
    "message: out of order": "after what was sent on the next connection",
    "message: twice": "once in time, and again later",
    "message: in time, though its connection broke": "it was read before the break was seen",
    "message: very late": "by up to half a second",
    "talk nonsense": "a broken member sends what no correct one does",
    "come as a stranger": "who is no member, was one, or has a member's name and another data directory",
    "stranger: refused": "and was not listened to",
    "cut link": "a link is cut",
    "network: cut one way": "an asymmetric partition",
    "network: cut both ways": "a symmetric one",
    "partition": "the cluster is split",
    "isolate": "a node is deaf, mute or both",
    "depose": "the leader is cut off, and clients still reach it",
    "strand": "the same, and its machine loses power meanwhile",
    "starve": "what the leader sends to a follower hangs",
    "kill": "a process is killed",
    "lose power": "a machine forgets what it did not sync",
    "restart all": "all of them at once",
    "die in sync": "the power is to go in the middle of an fsync",
    "die installing": "or while a snapshot is installed",
    "process: ended within a sync": "and it did",
    "disk: file torn": "a file kept some of the sectors that were not synced",
    "fail sync": "an fsync is to fail",
    "disk: failed": "and it did",
    "fill disk": "a disk is full for a while",
    "disk: full for the log": "when the log was to be written",
    "disk: full for the state": "when an entry was to be applied",
    "disk: hung": "for up to 0.4 s",
    "slow down": "a process and its disk are up to 100 times as slow",
    "pause": "a process stands still",
    "drift": "a clock goes too fast or too slow",
    "jump wall": "a wall clock jumps by up to three hours",
    "transfer": "somebody asks for another leader",
    "formation among faults": "the faults begin before there is a leader",
    "members: add": "somebody asks for a new member",
    "members: remove": "somebody asks for one less",
    "members: emptied": "a disk is lost, and its machine comes back under its old name",
    "members: replace": "somebody asks for such a machine to be taken in again",
    "members: refused": "it, or who was removed, is not listened to",
    "snapshot installed": "a member was too far behind for the log",
    "client: answer lost": "the client cannot know whether it was done",
    "at rest: break a link": "between the leader and one follower, with no other fault about",
    "at rest: kill the leader": "with no other fault about",
    "at rest: silence the leader": "with no other fault about",
    "at rest: who was removed is quiet": "with no other fault about",
}
"""Kind → what it is."""


def total(reports: Iterable[Report]) -> Counter[str]:
    """How often each kind came in all of them, 0 for one that did not."""
    seen: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    for report in reports:
        seen.update(report.seen)
    return seen


def table(seen: Counter[str]) -> str:
    """A line for each kind."""
    return "\n".join(f"{seen[kind]:8d}  {kind:46s} {what}" for kind, what in KINDS.items())
