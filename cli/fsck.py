"""``raftfs fsck``: looking through a stopped node's data, and making a damaged node fit to rejoin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raftfs_cli import exitcodes, output

if TYPE_CHECKING:
    from raftfs.service.fsck import Report


def fsck(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="TOML file of the node.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Its data directory (without --config).")] = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move what is damaged aside, so that the node gets it back from the others when it runs.",
        ),
    ] = False,
    chunks: Annotated[bool, typer.Option("--chunks", help="Read the bytes of all chunks, too.")] = False,
    json: output.Json = False,
) -> None:
    """Look through the data of a stopped node. Nothing is changed without --repair. Exits with 9 if damage is left."""
    from raftfs.config import NodeConfig
    from raftfs.service.datadir import lock
    from raftfs.service.fsck import as_json, examine
    from raftfs.service.fsck import repair as repair_all

    if (config is None) == (data_dir is None):
        raise typer.BadParameter("give either --config FILE or --data-dir DIR")
    values = None if config is None else NodeConfig.load(config)
    folder = data_dir if values is None else values.data_dir
    assert folder is not None
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no data directory {folder}")
    held = lock(folder)
    try:
        report = examine(folder, chunks=chunks)
        done = repair_all(report, values) if repair and report.findings else []
    finally:
        os.close(held)
    if json:
        output.emit_json(as_json(report, done))
    else:
        output.emit(*_lines(report, done))
    if report.findings and not repair:
        raise typer.Exit(exitcodes.DAMAGED)


def _lines(report: Report, done: list[str]) -> list[str]:
    lines = [f"damaged {finding.part}: {finding.detail}" for finding in report.findings]
    lines += [f"note: {note}" for note in report.notes]
    if report.log is not None:
        lines.append(f"log: entries {report.log[0]} to {report.log[1]}")
    if report.applied is not None:
        lines.append(f"state: entry {report.applied.index} is applied")
    if report.chunks is not None:
        lines.append(f"chunks: {report.chunks} read")
    lines += done
    if done:
        lines.append(
            "start the node: it gets from the others what it lacks, and `raftfs cluster status` says how far it is"
        )
    elif report.findings:
        lines.append(f"{report.data_dir} is damaged; --repair makes the node get it back from the others")
    else:
        lines.append(f"no damage in {report.data_dir}")
    return lines
