"""``python -m raftfs.testing.powercut``: runs it and says what came of it.

Exit codes: 0 clean; 1 a promise was broken (or too little happened to judge); 2 it cannot run here; 3 undecided.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from raftfs.testing.nemesis.command import as_json, carry_out, text
from raftfs.testing.powercut.run import Options, run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m raftfs.testing.powercut",
        description="Three real nodes on disks that lose what was not synced when the power goes. Needs root and FUSE.",
    )
    parser.add_argument("--rounds", type=_rounds, default=20, help="how often the power goes (default 20)")
    parser.add_argument("--seed", type=int, help="repeats a schedule of cuts; default: a new one, printed first")
    parser.add_argument("--clients", type=int, choices=range(1, 33), default=6, metavar="N", help="default 6")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--dir", type=Path, help="keep logs, history and disks here, also of a clean run")
    parser.add_argument("--keep", action="store_true", help="do not remove the temporary directory of a clean run")
    parser.add_argument("--node-script", type=Path, help="Python file to run in place of nodes, to test the test")
    given = parser.parse_args()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    print(f"powercut: seed {seed}, {given.rounds} rounds", file=sys.stderr, flush=True)
    options = Options(seed, given.rounds, given.clients, given.dir, given.keep, given.node_script)
    return carry_out("powercut", lambda: run(options), as_json if given.json else text)


def _rounds(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100_000:
        raise argparse.ArgumentTypeError("from 1 to 100000 rounds")
    return value


if __name__ == "__main__":
    sys.exit(main())
