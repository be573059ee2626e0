"""A longer run by hand: ``python -m tests.fuzz [TARGET ...] --seconds 600 --seed 7``."""

from __future__ import annotations

import argparse
import logging
import secrets
import time

from .run import fuzz_one, http_names
from .targets import TARGETS


def main() -> None:
    names = [*TARGETS, *http_names()]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for name in options.targets or names:
        seed = secrets.randbits(32) if options.seed is None else options.seed
        end, number, round_ = time.monotonic() + options.seconds, 0, 0
        while time.monotonic() < end:
            number += fuzz_one(name, 500 if name in TARGETS else 20, seed + round_)
            round_ += 1
        print(f"{name}: {number:,} inputs, seed {seed}", flush=True)


if __name__ == "__main__":
    main()
