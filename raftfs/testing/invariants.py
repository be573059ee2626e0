"""The properties that make a Raft cluster one machine, checked on what its nodes show after each step of a schedule.

Names follow the Raft paper, figure 3: election safety, log matching, leader completeness, state machine safety. To
these come what clients were told: an acknowledged command is in the end applied by every node, once, and not before a
command that was acknowledged before it was proposed. Nothing here knows an engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LogEntry = tuple[int, int, bytes]
"""index, term, bytes"""


class Violation(Exception):
    """A property does not hold. ``rule`` names it."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass
class Acknowledged:
    """A command that a client was told to be applied; steps of the schedule say when it was proposed and answered."""

    command: bytes
    proposed_at: int
    answered_at: int


@dataclass
class Checker:
    """Feed it with everything that happens; it raises Violation as soon as something is wrong."""

    leaders: dict[int, str] = field(default_factory=dict)
    terms: dict[str, int] = field(default_factory=dict)
    entries: dict[tuple[int, int], tuple[bytes, int]] = field(default_factory=dict)
    """(index, term) → bytes, and the term of the entry before: equal everywhere, so whole prefixes are equal"""
    applied: dict[int, tuple[int, bytes, int]] = field(default_factory=dict)
    """index → entry's term and bytes, and the lowest term in which a node knew that it is committed"""
    positions: dict[str, int] = field(default_factory=dict)

    def observe(self, name: str, *, term: int, leads: bool, log: Sequence[LogEntry]) -> None:
        """What a node is and holds now; ``log`` may leave out a beginning that was observed before."""
        if term < self.terms.get(name, 0):
            raise Violation("terms never go back", f"{name} was in term {self.terms[name]}, and is in {term} now")
        self.terms[name] = term
        self._check_log(name, log)
        if leads:
            known = self.leaders.setdefault(term, name)
            if known != name:
                raise Violation("election safety", f"{known} and {name} lead term {term}")
            self._check_leader(name, term, log)

    def _check_log(self, name: str, log: Sequence[LogEntry]) -> None:
        before, expected = -1, log[0][0] if log else 0
        for index, term, data in log:
            if index != expected or term < before:
                raise Violation("log matching", f"{name} holds index {index} of term {term} at {expected}")
            known = self.entries.setdefault((index, term), (data, before))
            if known[0] != data or (before >= 0 and known[1] not in (-1, before)):
                raise Violation("log matching", f"two different logs end with index {index} of term {term}")
            before, expected = term, expected + 1

    def _check_leader(self, name: str, leader_term: int, log: Sequence[LogEntry]) -> None:
        first = log[0][0] if log else 1
        for index, (term, data, known_in) in self.applied.items():
            if known_in >= leader_term or index < first:
                continue
            if index - first >= len(log) or log[index - first][1:] != (term, data):
                raise Violation("leader completeness", f"{name} leads term {leader_term} without the entry {index}")

    def apply(self, name: str, *, node_term: int, index: int, term: int, data: bytes) -> None:
        """A node, in ``node_term``, applied an entry."""
        position = self.positions.get(name, 0)
        if index != position + 1:
            raise Violation("state machine safety", f"{name} applied {index} after {position}")
        self.positions[name] = index
        known = self.applied.setdefault(index, (term, data, node_term))
        if known[:2] != (term, data):
            raise Violation("state machine safety", f"{name} applied another entry {index} than a node before it")
        if node_term < known[2]:
            self.applied[index] = (term, data, node_term)

    def restarted(self, name: str, applied_index: int) -> None:
        """A node began anew with a state that has applied that much."""
        self.positions[name] = applied_index

    def finish(self, states: Mapping[str, Sequence[bytes]], acknowledged: Iterable[Acknowledged]) -> None:
        """The cluster has come to rest: ``states`` are the commands that each node has applied, in order."""
        for name, commands in states.items():
            place: dict[bytes, int] = {}
            for at, command in enumerate(commands):
                if place.setdefault(command, at) != at:
                    raise Violation("exactly once", f"{name} applied {command!r} twice")
            self._check_promises(name, place, acknowledged)
        if len({tuple(commands) for commands in states.values()}) > 1:
            raise Violation("state machine safety", "the nodes came to rest in different states")

    def _check_promises(self, name: str, place: Mapping[bytes, int], acknowledged: Iterable[Acknowledged]) -> None:
        promises = list(acknowledged)
        for promise in promises:
            if promise.command not in place:
                raise Violation("durability", f"{name} does not have {promise.command!r}, which was acknowledged")
        answered = sorted(promises, key=lambda promise: promise.answered_at)
        furthest, done = -1, 0
        for promise in sorted(promises, key=lambda promise: promise.proposed_at):
            while done < len(answered) and answered[done].answered_at < promise.proposed_at:
                furthest = max(furthest, place[answered[done].command])
                done += 1
            if place[promise.command] < furthest:
                raise Violation("real-time order", f"{promise.command!r} was applied before its time")
