"""One target, its corpus first, then inputs made from it by a seed. What fails is written down."""

from __future__ import annotations

import hashlib
import random
import tempfile
from pathlib import Path

from .mutate import corpus, inputs
from .targets import TARGETS, Target
from .web import WEB


class Finding(AssertionError):
    """An input that broke an oracle. It lies in ``path``: fix the bug, and keep the file in the corpus as found-*."""

    def __init__(self, target: str, seed: int, data: bytes, error: BaseException) -> None:
        self.path = Path(tempfile.gettempdir()) / f"found-{target}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        self.path.write_bytes(data)
        super().__init__(
            f"{target}, seed {seed}: {type(error).__name__}: {error}\n{data[:300]!r}\nwritten to {self.path}"
        )


def http_names() -> list[str]:
    return list(WEB)


def fuzz_one(name: str, number: int, seed: int, target: Target | None = None) -> int:
    """How many inputs were tried. Raises Finding."""
    dice = random.Random(seed)
    seeds = corpus({"frontend": "answers", "client": "answers"}.get(name, name))
    tried = 0
    with (target or TARGETS.get(name) or WEB[name])() as check:
        for data in inputs(seeds, number, dice):
            try:
                check(data)
            except Exception as error:
                raise Finding(name, seed, data, error) from error
            tried += 1
    return tried
