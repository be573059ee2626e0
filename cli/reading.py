"""Options of the commands that read: how current the answer must be."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

Level = Literal["linearizable", "bounded", "stale"]
Consistency = Annotated[
    Level,
    typer.Option(
        "--consistency",
        help="linearizable: current. bounded: at most --max-staleness old. stale: what any reachable server has.",
    ),
]
MaxStaleness = Annotated[
    float | None, typer.Option("--max-staleness", metavar="SECONDS", help="For --consistency bounded.")
]
Revision = Annotated[int | None, typer.Option("--revision", help="As it was at this revision.")]

DEFAULT: Level = "linearizable"


def read_options(consistency: Level, max_staleness: float | None, revision: int | None) -> dict[str, Any]:
    """The options as arguments of the client's calls."""
    options = {"consistency": consistency, "max_staleness": max_staleness, "revision": revision}
    return {key: value for key, value in options.items() if value is not None}


def tree_options(options: dict[str, Any]) -> dict[str, Any]:
    """What of these a call for a whole tree takes: it reads one revision, so an age does not apply to its parts."""
    return {key: value for key, value in options.items() if key != "max_staleness"}
