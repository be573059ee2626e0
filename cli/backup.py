"""``raftfs backup``: copies of the whole tree, made from a running cluster, and what can be done with them."""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from raftfs import limits
from raftfs.errors import InvalidRequest
from raftfs_cli import connection, exitcodes, output
from raftfs_cli.progress import metering

if TYPE_CHECKING:
    from raftfs.backup import Created, Info, Pruned, Report, Restored
    from raftfs.client import AsyncClient

STDIO: Final = "-"
TAR: Final = ".tar"

app = typer.Typer(no_args_is_help=True, help="Copies of the whole tree, and putting them back.")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Name = Annotated[str | None, typer.Option("--backup", metavar="NAME", help="Which one; default: the newest.")]
Where = Annotated[Path, typer.Argument(metavar="SRC", help="A directory of backups, or a .tar file.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A directory of backups.")]
Jobs = Annotated[
    int,
    typer.Option("--jobs", "-j", min=1, max=limits.CLIENT_TRANSFERS_AT_ONCE_MAX, help="Requests at a time."),
]


@app.callback()
def _backup() -> None:
    pass


@app.command()
def create(
    target: Annotated[
        str, typer.Argument(metavar="DEST", help="A directory of backups, a new .tar file, or - (a tar stream).")
    ],
    jobs: Jobs = limits.BACKUP_CHUNKS_AT_ONCE_DEFAULT,
    quiet: Quiet = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Copy the whole tree, as it is at one revision, from a running cluster.

    A directory takes any number of backups, and what one of them has is not fetched again. A tar file holds one
    backup, whole. After a failure run it again: a directory goes on with what it has.
    """
    from raftfs import backup

    with metering("saved", quiet=quiet or json, to_stdout=True) as meter:
        report = meter.transfer()

        async def work(client: AsyncClient) -> Created:
            if target == STDIO:
                if sys.stdout.isatty():
                    raise InvalidRequest("a tar stream is nothing for a terminal: send it to a file or a program")
                return await backup.create_tar(client, sys.stdout.buffer, report=report, concurrency=jobs)
            if target.endswith(TAR):
                return await backup.create_tar_file(client, Path(target), report=report, concurrency=jobs)
            return await backup.create(client, Path(target), report=report, concurrency=jobs)

        with output.reader_may_leave():
            done = connection.run(work)
    _show_created(done, json, to_stdout=target == STDIO)


def _show_created(done: Created, json: bool, *, to_stdout: bool) -> None:
    if json:
        text = {**_json(done.backup), "new_objects": done.new_objects, "new_bytes": done.new_bytes}
        if to_stdout:
            output.say_json(text)
        else:
            output.emit_json(text)
        return
    info = done.backup
    line = (
        f"{info.name}: revision {info.revision} of cluster {info.cluster_id}, {_amount(info)}; "
        f"new: {output.human_bytes(done.new_bytes)} in {done.new_objects} objects"
    )
    if to_stdout:
        output.say(line)
    else:
        output.emit(line)


@app.command()
def verify(source: Where, json: output.Json = False) -> None:
    """Check backups, without a cluster: whether anything is missing, damaged, or does not belong there.

    Reads all of it. Exits with 1 if something is wrong.
    """
    from raftfs import backup
    from raftfs.errors import CorruptData

    try:
        opened = backup.open_source(source)
    except CorruptData as error:
        report = backup.Report([backup.Finding("damaged", str(source), error.detail)])
    else:
        try:
            report = backup.verify(opened)
        finally:
            opened.close()
    if json:
        output.emit_json(
            {
                "findings": [dataclasses.asdict(finding) for finding in report.findings],
                "notes": report.notes,
                "backups": [_json(info) for info in report.backups],
                "objects": report.objects,
                "size": report.size,
            }
        )
    else:
        output.emit(*_report_lines(source, report))
    if report.findings:
        raise typer.Exit(exitcodes.FAILURE)


def _report_lines(source: Path, report: Report) -> list[str]:
    lines = [f"{finding.kind}: {finding.what}: {finding.detail}" for finding in report.findings]
    lines += [f"note: {note}" for note in report.notes]
    looked = f"{len(report.backups)} backups, {report.objects} objects, {output.human_bytes(report.size)}"
    if report.findings:
        return [*lines, f"{source} is not whole: {len(report.findings)} findings ({looked} read)"]
    return [*lines, f"{source} is whole: {looked} read"]


@app.command()
def restore(
    source: Where,
    path: Annotated[
        list[str] | None, typer.Option("--path", metavar="PATH", help="Only this, into a live cluster; repeatable.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="PATH", help="Where that one path goes instead.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace files that differ.")] = False,
    skip: Annotated[bool, typer.Option("--skip", help="Leave files that differ.")] = False,
    backup: Name = None,
    jobs: Jobs = limits.CLIENT_TRANSFERS_AT_ONCE_DEFAULT,
    quiet: Quiet = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Make an empty cluster what a backup holds; or, with --path, put some of it back into a live one.

    Nothing is overwritten unless --replace says so, and nothing is ever removed. Afterwards every file is compared with
    the backup. Run it again after a failure: what is there already is not sent again.
    """
    from raftfs import backup as backups

    if (to or replace or skip) and not path:
        raise typer.BadParameter("--to, --replace and --skip go with --path")
    if replace and skip:
        raise typer.BadParameter("give --replace or --skip, not both")
    opened = backups.open_source(source)
    try:
        with metering("restored", quiet=quiet or json, to_stdout=True) as meter:
            report = meter.transfer()

            async def work(client: AsyncClient) -> Restored:
                if not path:
                    return await backups.restore(client, opened, name=backup, report=report, concurrency=jobs)
                return await backups.restore_paths(
                    client, opened, path, to=to, existing="replace" if replace else "skip" if skip else "refuse",
                    name=backup, report=report, concurrency=jobs,
                )  # fmt: skip

            done = connection.run(work)
    finally:
        opened.close()
    if json:
        counts = {"written": done.written, "same": done.same, "skipped": done.skipped, "size": done.size}
        output.emit_json({"backup": _json(done.backup), "revision": done.revision, **counts})
    else:
        output.emit(
            f"restored {done.backup.name}: {done.written} written, {done.same} there already, {done.skipped} skipped; "
            f"compared with the backup at revision {done.revision}"
        )


@app.command("list")
def list_(directory: Folder, json: output.Json = False) -> None:
    """Show the backups in a directory, oldest first."""
    from raftfs import backup

    infos = backup.list_backups(directory)
    if json:
        output.emit_json({"backups": [_json(info) for info in infos]})
        return
    rows: list[tuple[object, ...]] = [
        (info.name, info.revision, _moment(info.created_ms), info.files, info.directories, info.size) for info in infos
    ]
    output.emit(*output.columns([("NAME", "REVISION", "TIME", "FILES", "DIRECTORIES", "BYTES"), *rows], [1, 3, 4, 5]))


@app.command()
def prune(
    directory: Folder,
    keep: Annotated[int, typer.Option(metavar="N", min=0, help="Keep the newest N.")] = 0,
    keep_daily: Annotated[int, typer.Option(metavar="N", min=0, help="And the newest of each of N days.")] = 0,
    keep_weekly: Annotated[int, typer.Option(metavar="N", min=0, help="And the newest of each of N weeks.")] = 0,
    keep_monthly: Annotated[int, typer.Option(metavar="N", min=0, help="And the newest of each of N months.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    json: output.Json = False,
) -> None:
    """Remove old backups, and what only they need. The newest one always stays. Days, weeks and months are in UTC."""
    from raftfs import backup

    policy = backup.Policy(keep, keep_daily, keep_weekly, keep_monthly)
    done = backup.prune(directory, policy, dry_run=dry_run)
    if json:
        lists = {"removed": [_json(info) for info in done.removed], "kept": [_json(info) for info in done.kept]}
        output.emit_json({**lists, "objects": done.objects, "size": done.size, "dry_run": dry_run})
    else:
        output.emit(*_pruned_lines(done, dry_run))


def _pruned_lines(done: Pruned, dry_run: bool) -> list[str]:
    verb = "would remove" if dry_run else "removed"
    return [
        *(f"{verb} {info.name}" for info in done.removed),
        f"{verb} {len(done.removed)} backups and {done.objects} objects, {output.human_bytes(done.size)}; "
        f"{len(done.kept)} backups stay",
    ]


def _json(info: Info) -> dict[str, Any]:
    return dataclasses.asdict(info)


def _amount(info: Info) -> str:
    return f"{info.files} files and {info.directories} directories, {output.human_bytes(info.size)}"


def _moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
