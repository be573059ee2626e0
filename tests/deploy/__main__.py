"""``python -m tests.deploy``: the deploy test (docs/design/deploy-test.md). Needs root, and Debian's packages.

Exit codes: 0 passed; 1 failed; 2 it cannot run here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from raftfs.testing.nemesis.machine import CannotRun

from . import wheels
from .fleet import Fleet, check_machine, remove_leftovers
from .machines import ALL, FRONTENDS, NODES
from .phases import PHASES
from .trial import Report, Trial, say

_FAILED: Final = 1
_CANNOT_RUN: Final = 2
_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.cleanup:
        say(f"cleaned up: {', '.join(remove_leftovers()) or 'nothing was left over'}")
        return 0
    signal.signal(signal.SIGTERM, _stop)
    folder = (given.dir or Path(tempfile.mkdtemp(prefix="raftfs-deploy-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        report = _run(given, folder)
    except CannotRun as error:
        say(f"DID NOT RUN: {error}")
        say(f"not run: {', '.join(name for name, _ in PHASES)}")
        return _CANNOT_RUN
    except KeyboardInterrupt:
        say("interrupted, and cleaned up; there is no verdict")
        return _INTERRUPTED
    if report.passed and not given.dir:
        shutil.rmtree(folder)
    print(json.dumps(report.as_json(), indent=2) if given.json else report.text())
    return 0 if report.passed else _FAILED


def _run(given: argparse.Namespace, folder: Path) -> Report:
    check_machine()
    remove_leftovers()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    say(f"seed {seed}; making wheels, and machines")
    made = wheels.make(folder / "wheels")
    fleet = Fleet(ALL)
    try:
        with fleet.network.enter_hub():
            fleet.boot([*NODES, *FRONTENDS])
            trial = Trial(fleet, made, folder, seed)
            try:
                report = asyncio.run(trial.run(PHASES[: given.until]))
            finally:
                trial.keep_journals()
    finally:
        fleet.close()
    if not report.passed or given.dir:
        report.folder = str(folder)
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.deploy", description="A cluster's life on machines that boot."
    )
    parser.add_argument("--seed", type=int, help="of what the clients do; default: a new one, printed first")
    parser.add_argument("--dir", type=Path, help="keep logs, histories and journals here, also if it passes")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--cleanup", action="store_true", help="remove what runs that died have left behind, and end")
    parser.add_argument("--until", type=int, metavar="N", help="only the first N phases, to try them out")
    return parser


def _stop(number: int, frame: object) -> None:
    """End as Ctrl-C does: everything is cleaned up on the way."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
