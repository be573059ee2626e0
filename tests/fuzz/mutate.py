"""Inputs that are nearly right: real ones with bits flipped, pieces cut, copied, moved, and lengths made absurd."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
_LENGTHS = (0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63)
_MARKS = (
    b"\x00", b"\xff", b"\xc0", b"\xdb", b"\xdd", b"\xcf", b"\xd3", b"%00", b"\r\n", b"\r\n\r\n", b"..", b"/", b"?",
    b"&", b"\xed\xa0\x80", b"-1", b"9" * 30, b"\xe2\x80\xae", b'"', b"{", b"[", b" ", b"\t",
)  # fmt: skip


def corpus(target: str) -> list[bytes]:
    """The inputs kept for a target: real ones, and those that once found something (``found-*``)."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def inputs(seeds: Sequence[bytes], number: int, dice: random.Random) -> Iterator[bytes]:
    """All seeds as they are, then ``number`` that were made from them."""
    yield from seeds
    for _ in range(number):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
            data = _mutate(data, seeds, dice)
        yield bytes(data)


def _mutate(data: bytearray, seeds: Sequence[bytes], dice: random.Random) -> bytearray:
    start, stop = sorted(dice.randint(0, len(data)) for _ in range(2))
    stop = min(stop, start + 1024)
    kind = dice.randrange(9)
    if kind == 0 and data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == 1 and data:
        data[dice.randrange(len(data))] = dice.randrange(256)
    elif kind == 2:
        del data[start:stop]
    elif kind == 3:
        del data[start:]
    elif kind == 4:
        data[start:start] = data[start:stop]
    elif kind == 5:
        other = dice.choice(seeds)
        low, high = sorted(dice.randint(0, len(other)) for _ in range(2))
        data[start:stop] = other[low : min(high, low + 1024)]
    elif kind == 6:
        size = dice.choice((1, 2, 4, 8))
        value = dice.choice(_LENGTHS) % 2 ** (8 * size)
        data[start : start + size * dice.randrange(2)] = value.to_bytes(size, dice.choice(("big", "little")))
    elif kind == 7:
        data[start:start] = dice.choice(_MARKS)
    else:
        data[start:stop] = bytes(stop - start)
    return data
