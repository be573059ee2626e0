"""Whether a history of reads and writes of one register has an order that explains it (Wing and Gong's search).

The search tries operations that could come next, those that began before any other one ended, and remembers which
sets of done operations with which value lead nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NEVER = math.inf
"""End of an operation whose outcome nobody knows: it may take effect at any time from its begin on, or not at all."""


@dataclass(frozen=True)
class Operation:
    """``kind`` is "read" (``value`` was seen) or "write"; begin and end on one clock. ``who`` is for people only."""

    kind: str
    value: str | None
    begin: float
    end: float
    who: str = ""


def is_linearizable(history: Sequence[Operation], initial: str | None = None) -> bool:
    """Whether some order of all ended operations (and any of the others) keeps real time and explains every read."""
    operations = sorted(history, key=lambda operation: operation.begin)
    everything = (1 << len(operations)) - 1
    required = sum(1 << n for n, operation in enumerate(operations) if operation.end != NEVER)
    stack: list[tuple[int, str | None]] = [(0, initial)]
    seen = set(stack)
    while stack:
        done, value = stack.pop()
        done = _reads_of(operations, done, value)
        if done & required == required:
            return True
        for number in _candidates(operations, everything & ~done):
            operation = operations[number]
            if operation.kind == "write":
                state = (done | 1 << number, operation.value)
                if state not in seen:
                    seen.add(state)
                    stack.append(state)
    return False


def _reads_of(operations: Sequence[Operation], done: int, value: str | None) -> int:
    """``done`` with all reads that may come now and see ``value``: taking them at once never spoils anything."""
    everything = (1 << len(operations)) - 1
    while True:
        taken = done
        for number in _candidates(operations, everything & ~done):
            if operations[number].kind == "read" and operations[number].value == value:
                taken |= 1 << number
        if taken == done:
            return done
        done = taken


def _candidates(operations: Sequence[Operation], left: int) -> list[int]:
    """Those of the operations ``left`` that began before any of them had ended. They are sorted by begin."""
    found, first_end = [], NEVER
    while left:
        low = left & -left
        number = low.bit_length() - 1
        if operations[number].begin > first_end:
            break
        found.append(number)
        first_end = min(first_end, operations[number].end)
        left ^= low
    return [number for number in found if operations[number].begin <= first_end]
