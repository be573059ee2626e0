"""``raftfs-nemesis``: runs the nemesis and says what came of it.

Exit codes: 0 clean; 1 a promise was broken (or too little happened to judge); 2 it cannot run here; 3 undecided.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, get_args

from raftfs.errors import RaftfsError
from raftfs.testing import history
from raftfs.testing.linearizability import check, revision_faults
from raftfs.testing.nemesis.machine import check_machine, clean_up
from raftfs.testing.nemesis.run import Options, run
from raftfs.testing.nemesis.schedule import KINDS, Kind
from raftfs.testing.nemesis.trial import Report

_EXIT_CODES: Final = {"clean": 0, "violated": 1, "undecided": 3}
_CANNOT_RUN: Final = 2
_INTERRUPTED: Final = 130
_SHOWN_MAX: Final = 10


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        if given.judge is not None:
            return _judge(given.judge)
        if given.cleanup:
            check_machine()
            print("cleaned up:", ", ".join(clean_up()) or "nothing was left over")
            return 0
        seed = secrets.randbelow(2**31) if given.seed is None else given.seed
        print(f"nemesis: seed {seed}, {given.nodes} nodes, {given.duration:g} s", file=sys.stderr, flush=True)
    except RaftfsError as error:
        return _cannot_run("nemesis", error)
    options = Options(
        seed=seed,
        duration_s=given.duration,
        nodes=given.nodes,
        clients=given.clients,
        kinds=tuple(given.faults.split(",")) if given.faults else KINDS,
        folder=given.dir,
        keep=given.keep,
        node_script=given.node_script,
    )
    return carry_out("nemesis", lambda: run(options), as_json if given.json else text)


def carry_out(name: str, begin: Callable[[], Report], show: Callable[[Report], str]) -> int:
    """Begin a run, print what came of it, and return the exit code."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        report = begin()
    except RaftfsError as error:
        return _cannot_run(name, error)
    except KeyboardInterrupt:
        print(f"{name}: interrupted, and cleaned up; there is no verdict", file=sys.stderr)
        return _INTERRUPTED
    print(show(report))
    return _EXIT_CODES[report.verdict]


def _cannot_run(name: str, error: RaftfsError) -> int:
    print(f"{name}: DID NOT RUN: {error}", file=sys.stderr)
    return _CANNOT_RUN


def as_json(report: Report) -> str:
    """A report for programs."""
    return json.dumps(report.as_json(), indent=2)


def _stop(number: int, frame: object) -> None:
    """End as Ctrl-C does: everything is cleaned up on the way."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="raftfs-nemesis", description="Real nodes in network namespaces, faults, and a judge. Needs root."
    )
    parser.add_argument("--duration", type=_seconds, default=180.0, help="seconds in which faults fall (default 180)")
    parser.add_argument("--seed", type=int, help="repeats a schedule of faults; default: a new one, printed first")
    parser.add_argument("--nodes", type=int, choices=(3, 5), default=3)
    parser.add_argument("--clients", type=int, choices=range(1, 33), default=6, metavar="N", help="default 6")
    parser.add_argument("--faults", type=_kinds, help=f"only these, separated by commas: {', '.join(KINDS)}")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--dir", type=Path, help="keep logs, history and journals here, also of a clean run")
    parser.add_argument("--keep", action="store_true", help="do not remove the temporary directory of a clean run")
    parser.add_argument("--node-script", type=Path, help="Python file to run in place of nodes, to test the nemesis")
    parser.add_argument("--cleanup", action="store_true", help="remove what runs that died have left behind, and end")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="judge the history in this file again, and end")
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 5 <= value <= 86_400:
        raise argparse.ArgumentTypeError("from 5 to 86400 seconds")
    return value


def _kinds(text: str) -> str:
    if unknown := set(text.split(",")) - set(get_args(Kind)):
        raise argparse.ArgumentTypeError(f"there is no fault {', '.join(sorted(unknown))}")
    return text


def _judge(path: Path) -> int:
    operations = history.load(path)
    verdict = check(operations)
    complaints = [*map(str, verdict.violations), *revision_faults(operations)]
    print(*complaints, sep="\n")
    print(f"{len(operations)} operations in {verdict.parts} parts, {verdict.undecided} of them undecided: ", end="")
    result = "violated" if complaints else "undecided" if verdict.undecided else "clean"
    print(result)
    return _EXIT_CODES[result]


def text(report: Report) -> str:
    """A report in words."""
    lines = [f"seed {report.seed}, {report.nodes} nodes, {report.duration_s:g} s", "what fell:"]
    lines += [f"  {line}" for line in report.schedule]
    counts = ", ".join(f"{report.outcomes.get(kind, 0)} {kind}" for kind in ("ok", "fail", "unknown"))
    lines.append(f"operations: {counts}; answers of single tries: {report.answers}")
    lines.append(
        f"{report.terms} terms, {report.states_compared} comparisons of states, {report.parts} parts of history judged"
    )
    lines += [f"COMPLAINT: {complaint}" for complaint in report.complaints[:_SHOWN_MAX]]
    if (more := len(report.complaints) - _SHOWN_MAX) > 0:
        lines.append(f"and {more} more complaints; --json shows all")
    if report.folder:
        lines.append(f"logs, history and journals: {report.folder}")
    lines.append(f"verdict: {report.verdict} (seed {report.seed})")
    return "\n".join(lines)
