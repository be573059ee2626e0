"""Patterns of a list: shell wildcards, matched component by component so that no pattern can take long.

``*`` any characters of one name, ``?`` one character, ``[ab]`` ``[!ab]`` one of a set, ``**`` as a whole component any
number of directories, none included. A pattern without wildcards matches the one path that it spells.
"""

from __future__ import annotations

import fnmatch
import re
from typing import Final

from raftfs.errors import InvalidRequest
from raftfs.limits import GLOB_BYTES_MAX

_ANY_DEPTH: Final = None


class Glob:
    """A compiled pattern.

    It is run like an automaton: ``start`` gives the positions before the first component, ``step`` those after one
    more name, ``accepts`` says whether a path that ends here matches. No positions left means that nothing below can
    match, so a walk need not go there.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern or len(pattern.encode(errors="replace")) > GLOB_BYTES_MAX:
            raise InvalidRequest(f"a glob has 1 to {GLOB_BYTES_MAX} bytes")
        self._parts: list[re.Pattern[str] | None] = []
        for part in pattern.split("/"):
            if part != "**":
                self._parts.append(re.compile(fnmatch.translate(part)))
            elif self._parts[-1:] != [_ANY_DEPTH]:  # two in a row say what one says, and cost the square of it
                self._parts.append(_ANY_DEPTH)

    @property
    def depth(self) -> int:
        """Number of components of the pattern."""
        return len(self._parts)

    def start(self) -> frozenset[int]:
        return self._skip({0})

    def step(self, positions: frozenset[int], name: str) -> frozenset[int]:
        after = set()
        for position in positions:
            if position == len(self._parts):
                continue
            part = self._parts[position]
            if part is _ANY_DEPTH:
                after.add(position)
            elif part.match(name):
                after.add(position + 1)
        return self._skip(after)

    def accepts(self, positions: frozenset[int]) -> bool:
        return len(self._parts) in positions

    def _skip(self, positions: set[int]) -> frozenset[int]:
        """Add what is reached by letting ``**`` stand for no directory at all."""
        closed = set()
        for position in positions:
            closed.add(position)
            while position < len(self._parts) and self._parts[position] is _ANY_DEPTH:
                position += 1
                closed.add(position)
        return frozenset(closed)
