"""Whether some single order of all operations explains a history: each takes effect at one instant between its begin
and its end, and every answer is what the one before left behind.

The search is just in time (Lowe, "Testing for linearizability", 2017, after Wing and Gong, 1993). It walks through
begins and ends by the clock and keeps all *configurations* that are possible so far: a state, and which of the
operations under way have taken effect to get there. Only when an operation ends must it have taken effect; only then
are orders of those under way tried out. Equal configurations are one, which is what makes the search quick.

Three rules keep the set small, and none can change the verdict:

- An operation under way that changes nothing, and would be answered as it was, takes effect at once.
- An operation of unknown outcome never has to take effect. Of two configurations with the same state that differ only
  in which of those were used, one that used fewer can do all that the other can.
- Of several unknown operations that ask for the same, the one that began first is used first. Unknown writes ask for
  the same as each other if nobody ever saw what they wrote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from raftfs.testing import filemodel
from raftfs.testing.history import Operation

CONFIGURATIONS_MAX: Final = 300_000
"""Configurations looked at for one part of a history, before the search says that it cannot decide."""

_SHOWN_MAX: Final = 12

S = TypeVar("S", bound=Hashable)
Step = Callable[[S, Any], tuple[S, str]]


class Undecided(Exception):
    """There is too much under way at once: the search was given up."""


@dataclass(frozen=True)
class Violation:
    """``operation`` could not have been answered as it was. ``states`` are all that were possible when it ended, with
    ``open`` under way."""

    operation: Operation
    states: list[str]
    open: list[Operation]
    part: list[Operation]

    def __str__(self) -> str:
        lines = ["no order explains this answer:", f"  {self.operation}", "possible states before it:"]
        lines += [f"  {state}" for state in self.states[:_SHOWN_MAX]]
        lines += ["under way, or of unknown outcome, then:"]
        lines += [f"  {one}" for one in self.open[-_SHOWN_MAX:]]
        before = [one for one in self.part if one.known and one.end <= self.operation.end]
        lines += ["the last to end before it:"]
        lines += [f"  {one}" for one in sorted(before, key=lambda one: one.end)[-_SHOWN_MAX:]]
        return "\n".join(lines)


@dataclass
class Verdict:
    """``undecided`` counts parts of the history on which the search gave up; they are neither right nor wrong."""

    violations: list[Violation] = field(default_factory=list)
    parts: int = 0
    undecided: int = 0

    @property
    def linearizable(self) -> bool:
        """Whether every part was explained. An undecided part is not."""
        return not self.violations and not self.undecided


def check(history: Sequence[Operation], *, configurations_max: int = CONFIGURATIONS_MAX) -> Verdict:
    """Judge a history of files that begins with none of them there. Each part ends at its first violation."""
    verdict = Verdict()
    for part in filemodel.partitions(history):
        verdict.parts += 1
        try:
            violation = search(
                filemodel.without_unseen_values(part),
                filemodel.step,
                filemodel.EMPTY,
                configurations_max=configurations_max,
            )
        except Undecided:
            verdict.undecided += 1
            continue
        if violation is not None:
            verdict.violations.append(violation)
    return verdict


def revision_faults(history: Sequence[Operation]) -> list[str]:
    """What the revisions on the answers give away, over all files at once: complaints, empty if there are none.

    An answer that came before another question was asked has no higher revision than the answer to that; the revision
    of a change is higher than that of any answer before it, and no two changes have the same one.
    """
    complaints: list[str] = []
    told = [one for one in history if one.known and one.revision is not None]
    ends = sorted(told, key=lambda one: one.end)
    highest: Operation | None = None
    done = 0
    for one in sorted(told, key=lambda one: one.begin):
        while ends[done].end < one.begin:
            highest = max(highest or ends[done], ends[done], key=_revision)
            done += 1
        if highest is not None and _revision(one) < _revision(highest) + one.changed:
            complaints.append(f"the revision does not grow from\n  {highest}\nto the later\n  {one}")
    changes: dict[int, Operation] = {}
    for one in told:
        if one.changed and (other := changes.setdefault(_revision(one), one)) is not one:
            complaints.append(f"two changes with one revision:\n  {other}\n  {one}")
    return complaints


def _revision(operation: Operation) -> int:
    assert operation.revision is not None
    return operation.revision


def search(
    history: Sequence[Operation], step: Step[S], initial: S, *, configurations_max: int = CONFIGURATIONS_MAX
) -> Violation | None:
    """Judge a history of anything that ``step`` describes; None if an order explains it. Raises Undecided."""
    run = _Search(history, step, initial, configurations_max)
    for is_end, operation in _events(history):
        if not is_end:
            run.begin(operation)
        elif not run.end(operation):
            return run.violation(operation)
    return None


def _events(history: Sequence[Operation]) -> list[tuple[bool, Operation]]:
    """Begins and ends by the clock. What touches at one instant counts as concurrent."""
    ends = [(one.end, True, number) for number, one in enumerate(history) if one.known]
    begins = [(one.begin, False, number) for number, one in enumerate(history)]
    return [(is_end, history[number]) for _, is_end, number in sorted([*begins, *ends])]


class _Search(Generic[S]):
    """The possible configurations: for each state, and set of ended-to-be operations that took effect already, the
    least sets of unknown ones that lead there. Sets are bits of an int, one for each operation under way."""

    def __init__(self, history: Sequence[Operation], step: Step[S], initial: S, configurations_max: int) -> None:
        self._history, self._step = history, step
        self._left = configurations_max
        self._open: dict[int, Operation] = {}
        self._bits: dict[int, int] = {}
        self._free: list[int] = []
        self._now = _Configurations[S]()
        self._now.add(initial, 0, 0)

    def begin(self, operation: Operation) -> None:
        bit = self._free.pop() if self._free else 1 << len(self._open)
        self._open[bit] = operation
        self._bits[id(operation)] = bit

    def end(self, operation: Operation) -> bool:
        """Keep the configurations in which it has taken effect. False if there are none."""
        bit = self._bits[id(operation)]
        ended, seen = _Configurations[S](), _Configurations[S]()
        work = deque(self._settle(*one) for one in self._now)
        while work:
            state, known, unknown = work.popleft()  # those that used least first: they make the others needless
            if known & bit:
                ended.add(state, known & ~bit, unknown)
                continue
            if not seen.add(state, known, unknown):
                continue
            self._left -= 1
            if self._left < 0:
                raise Undecided
            work.extend(self._next(state, known, unknown))
        if not ended:
            return False
        self._now = ended
        del self._open[bit], self._bits[id(operation)]
        self._free.append(bit)
        return True

    def _next(self, state: S, known: int, unknown: int) -> list[tuple[S, int, int]]:
        """The configurations after one more operation that changes the state."""
        found = []
        tried = set()
        for bit, operation in self._open.items():
            if (known | unknown) & bit or (operation.result is None and operation.call in tried):
                continue
            if operation.result is None:
                tried.add(operation.call)
            after, told = self._step(state, operation.call)
            if after == state:
                continue
            if operation.result is None:
                found.append(self._settle(after, known, unknown | bit))
            elif told == operation.result:
                found.append(self._settle(after, known | bit, unknown))
        return found

    def _settle(self, state: S, known: int, unknown: int) -> tuple[S, int, int]:
        """Let all that changes nothing, and is answered as it was, take effect."""
        for bit, operation in self._open.items():
            if operation.result is not None and not known & bit:
                after, told = self._step(state, operation.call)
                if after == state and told == operation.result:
                    known |= bit
        return state, known, unknown

    def violation(self, operation: Operation) -> Violation:
        states = sorted({_show(state) for state, _, _ in self._now})
        others = [one for one in self._open.values() if one is not operation]
        return Violation(operation, states, others, list(self._history))


def _show(state: object) -> str:
    if isinstance(state, frozenset):
        return " ".join(f"{path}={value}" for path, value in sorted(state)) or "no file"
    return str(state)


class _Configurations(Generic[S]):
    """A set of configurations, of which only the least are kept."""

    def __init__(self) -> None:
        self._least: dict[tuple[S, int], list[int]] = {}

    def add(self, state: S, known: int, unknown: int) -> bool:
        """False if one that is there can do all that this one can."""
        there = self._least.setdefault((state, known), [])
        if any(used & unknown == used for used in there):
            return False
        there[:] = [used for used in there if unknown & used != unknown]
        there.append(unknown)
        return True

    def __iter__(self) -> Any:
        return ((state, known, unknown) for (state, known), sets in self._least.items() for unknown in sets)

    def __bool__(self) -> bool:
        return bool(self._least)
