"""Which faults fall when: drawn from a seed before anything starts, so that a run can be repeated and read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "kill",
    "kill-all",
    "freeze",
    "freeze-majority",
    "split",
    "cut-off-leader",
    "cut-off-node",
    "one-way",
    "bridge",
    "break-connections",
    "loss",
    "full-disk",
    "full-disks",
    "clock",
    "clocks",
    "rolling-restart",
    "kill-frontend",
    "transfer",
    "replace",
    "grow-and-shrink",
]

KINDS: Final[tuple[Kind, ...]] = Kind.__args__  # type: ignore[attr-defined]

_FIRST_S: Final = 3.0
_GAP_S: Final = (0.5, 2.5)
_TOGETHER: Final = 0.25
"""Share of faults that begin while the one before still lasts."""

_LASTS_S: Final[dict[Kind, tuple[float, float]]] = {
    "kill": (0.2, 4.0),
    "kill-all": (0.2, 2.0),
    "freeze": (1.0, 6.0),
    "freeze-majority": (1.0, 3.0),
    "split": (2.0, 7.0),
    "cut-off-leader": (3.0, 7.0),
    "cut-off-node": (2.0, 6.0),
    "one-way": (2.0, 7.0),
    "bridge": (2.0, 6.0),
    "break-connections": (0.5, 3.0),
    "loss": (2.0, 5.0),
    "full-disk": (2.0, 6.0),
    "full-disks": (2.0, 4.0),
    "clock": (1.0, 4.0),
    "clocks": (1.0, 4.0),
    "rolling-restart": (1.0, 1.0),  # as long as the restarts take
    "kill-frontend": (0.2, 3.0),
    "transfer": (0.5, 0.5),  # as long as it takes
    "replace": (1.0, 4.0),  # the emptied member is refused for so long; the rest takes as long as it takes
    "grow-and-shrink": (1.0, 5.0),  # so long is the new one a member that votes
}

CLOCK_JUMPS_S: Final = (-86_400, -3_600, -30, -2, 2, 30, 3_600, 86_400)


@dataclass(frozen=True)
class Fault:
    """``at_s`` seconds after the start, for ``lasts_s``. ``node`` is a node's name or "leader", whoever that is then;
    ``dice`` is the seed of all else that the fault has to choose."""

    at_s: float
    kind: Kind
    node: str
    lasts_s: float
    dice: int

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} s  {self.kind} {self.node} for {self.lasts_s:.1f} s"


def draw(seed: int, nodes: Sequence[str], duration_s: float, kinds: Sequence[Kind] = KINDS) -> list[Fault]:
    """Faults for a run. Every kind comes once, in random order, before any comes again."""
    dice = random.Random(f"schedule/{seed}")
    faults: list[Fault] = []
    bag: list[Kind] = []
    at_s = _FIRST_S
    while at_s < duration_s:
        if not bag:
            bag = dice.sample(list(kinds), len(kinds))
        kind = bag.pop()
        lasts_s = min(round(dice.uniform(*_LASTS_S[kind]), 1), duration_s - at_s)
        node = "leader" if dice.random() < 0.5 else dice.choice(list(nodes))
        faults.append(Fault(round(at_s, 1), kind, node, lasts_s, dice.randrange(2**32)))
        wait_s = lasts_s / 2 if dice.random() < _TOGETHER else lasts_s + dice.uniform(*_GAP_S)
        at_s += max(0.5, wait_s)
    return faults
