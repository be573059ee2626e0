"""``raftfs recover``: after the quorum was lost for good, make one survivor a cluster of one; or say what it costs."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from raftfs import limits
from raftfs.errors import ConfigError, Conflict, InvalidRequest
from raftfs_cli import output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from raftfs.service.recovery import Lost, Recovery, Survey, Survivor


def register(app: typer.Typer) -> None:
    app.command()(recover)


def recover(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The node's configuration file.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Its data directory, without --config.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what could be lost.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every chunk, not only look for it.")] = False,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="What --dry-run --json printed for another survivor; repeat for several."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: output.Json = False,
) -> None:
    """Turn the one survivor of a lost quorum into a cluster of one. The node must not run.

    Only when a majority of the voting members is gone for good: writes that they acknowledged without this one are
    lost. The other members must never be started again with their old data.
    """
    from raftfs.service.recovery import choose, survivor

    where, values = _place(config, data_dir)
    with _quiet(), survivor(where, values) as found:
        if found.begun is not None:
            _resume(found, found.begun, dry_run, json)
            return
        survey = found.survey(read_chunks=verify)
        surveys = [survey, *map(_load, compare or [])]
        if not json:
            output.emit(*_lines(survey, found.last))
        best = choose(surveys)
        if not json:
            output.emit(*_comparison(surveys, best))
        if dry_run:
            if json:
                output.emit_json(_dry_run_json(survey, best, found.last))
            return
        if best is not survey:
            raise Conflict(f"{best.id} has more than {survey.id}: recover that one. Nothing was changed")
        if survey.is_alone:
            raise Conflict(f"{survey.id} is the only voting member of its cluster already: start it")
        if not yes:
            _confirm(survey)
        done = found.recover(survey)
    _show_done(done, json)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what a server's log would tell."""
    logger = logging.getLogger("raftfs")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _place(config: Path | None, data_dir: Path | None) -> tuple[Path, Any]:
    from raftfs.config import NodeConfig

    if (config is None) == (data_dir is None):
        raise typer.BadParameter("give either --config FILE or --data-dir DIRECTORY")
    if config is None:
        assert data_dir is not None
        return data_dir, None
    values = NodeConfig.load(config)
    return values.data_dir, values


def _load(path: Path) -> Survey:
    from raftfs.service.recovery import Survey

    try:
        return msgspec.json.decode(path.read_bytes(), type=Survey)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is not what `raftfs recover --dry-run --json` prints: {error}") from error


def _resume(found: Survivor, begun: Recovery, dry_run: bool, json: bool) -> None:
    if dry_run:
        raise Conflict(
            f"a recovery of {begun.id} was begun at {_moment(begun.time_ms)} and interrupted. It will be finished by "
            "`raftfs recover` without --dry-run, or by the node's next start"
        )
    output.say(f"finishing the recovery that was begun at {_moment(begun.time_ms)}")
    _show_done(found.resume(), json)


def _confirm(survey: Survey) -> None:
    others = ", ".join(member.id for member in survey.members if member.id != survey.id) or "no others"
    output.say(
        f"{survey.id} will be a cluster of one, with what is said above. The other members ({others}) must never be "
        "started again with their old data: together they could still go on as the old cluster, beside this one, and "
        "acknowledge writes that this one will never have.\n"
        f"Type the name of the cluster ({survey.cluster_id}) to go on:"
    )
    if sys.stdin.readline().strip() != survey.cluster_id:
        raise InvalidRequest("that is not the name of the cluster; nothing was changed (--yes goes on without asking)")


def _dry_run_json(survey: Survey, best: Survey, last: Recovery | None) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(survey)
    return {**values, "choose": best.id, "recovered": None if last is None else msgspec.to_builtins(last)}


def _show_done(done: Recovery, json: bool) -> None:
    if json:
        output.emit_json({"recovered": msgspec.to_builtins(done)})
        return
    others = ", ".join(member.id for member in done.former if member.id != done.id) or "none"
    output.emit(
        f"{done.id} is a cluster of one from entry {done.index} (term {done.term}) on; its data directory has the new "
        f"uuid {done.uuid}",
        f"never start again with their old data: {others}",
        "next: start it (raftfs node run), then add new members with empty data directories (raftfs cluster add)",
    )


def _lines(survey: Survey, last: Recovery | None) -> list[str]:
    """What is there, what is in doubt, what is lost, and what cannot be seen."""
    lines = [
        f"node {survey.id} of cluster {survey.cluster_id}, uuid {survey.uuid}, data in {survey.data_dir}",
        f"log: term {survey.term}; last entry (term {survey.last_term}, index {survey.last_index}); applied up to "
        f"index {survey.applied_index}, revision {survey.revision}",
        f"time of the last write in it: {_moment(survey.last_entry_ms)}",
        f"members since entry {survey.members_index}:",
        *(
            f"  {m.id}  {'votes' if m.voter else 'listens'}  {m.peer}  {m.url}{'  this node' * (m.id == survey.id)}"
            for m in survey.members
        ),
    ]
    if last is not None:
        lines.append(f"was recovered before, at {_moment(last.time_ms)}, at entry {last.index}")
    if survey.role == "learner":
        lines.append(f"CAUTION: {survey.id} did not vote. It may lack writes that were acknowledged long ago")
    if survey.role == "removed":
        lines.append(f"CAUTION: {survey.id} was no member any more. It lacks every write since it was removed")
    return [*lines, *_open(survey), *_losses(survey), *_unseen(survey)]


def _open(survey: Survey) -> list[str]:
    if not survey.open_entries:
        return ["in doubt: nothing. Every entry of its log is applied, and so was committed"]
    head = (
        f"in doubt: {survey.open_entries} entries of its log are not known to be committed. They become part of the "
        f"history, which brings it to revision {survey.revision_after}. The changes in them: {len(survey.open_changes)}"
    )
    shown = [f"  entry {c.index}  {_moment(c.time_ms)}  {c.text}: {c.result}" for c in survey.open_changes]
    return [head, *_bounded(shown)]


def _losses(survey: Survey) -> list[str]:
    looked = "their bytes were compared" if survey.chunks_read else "their bytes were not read; --verify does"
    if not survey.missing_chunks:
        return [f"lost: nothing that its log and state refer to. Every chunk is there ({looked})"]
    lines = [f"lost: {survey.missing_chunks} chunks, {survey.missing_bytes} bytes ({looked}). What lacks some of them:"]
    kinds = {"files": survey.lost_files, "old versions": survey.lost_versions, "uploads": survey.lost_uploads}
    for what, lost in kinds.items():
        lines.append(f"  {what}: {len(lost)}")
        lines += _bounded(f"    {_lost(one)}" for one in lost)
    return lines


def _lost(one: Lost) -> str:
    at = f", revision {one.revision}" if one.revision else ""
    return f"{one.path}  {one.size} bytes{at}: {one.missing_bytes} bytes are not here"


def _unseen(survey: Survey) -> list[str]:
    return [
        "cannot be seen from here: writes that the other members acknowledged without this node, after its last entry. "
        f"If it was cut off or stopped before the others failed, what was written from {_moment(survey.last_entry_ms)} "
        "on is lost",
        f"of several survivors, recover the one with the highest (last term, last index); this one: {survey.rank}. "
        "--compare does that, and sees to what each of them knows to be committed",
    ]


def _comparison(surveys: Sequence[Survey], best: Survey) -> list[str]:
    if len(surveys) == 1:
        return []
    shown = ", ".join(f"{s.id} {s.rank}, applied {s.applied_index}, lacks {s.missing_bytes} bytes" for s in surveys)
    return [f"compared by (last term, last index): {shown}. Recover {best.id}"]


def _bounded(lines: Iterable[str]) -> list[str]:
    shown = list(lines)
    more = len(shown) - limits.RECOVERY_LINES_MAX
    return [*shown[: limits.RECOVERY_LINES_MAX], *([f"    and {more} more: --json has all"] if more > 0 else [])]


def _moment(time_ms: int | None) -> str:
    if time_ms is None:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
