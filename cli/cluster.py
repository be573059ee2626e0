"""``raftfs cluster``: the members, the leader and their health."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from raftfs_cli import connection, output

if TYPE_CHECKING:
    from raftfs.models import ClusterStatus, FormatRange

app = typer.Typer(no_args_is_help=True, help="The members of a cluster.")


@app.callback()
def _cluster() -> None:
    pass


@app.command()
def status(json: output.Json = False, endpoint: connection.Endpoint = None, timeout: connection.Timeout = None) -> None:
    """Show leader and members as the server that answers sees them; works without a quorum, too."""
    found = connection.run(lambda client: client.cluster_status())
    if json:
        output.emit_json(found.model_dump())
    else:
        output.emit(*_lines(found))


def _lines(found: ClusterStatus) -> list[str]:
    leader = found.leader.id if found.leader else "none"
    health = "yes" if found.quorum else "NO (nothing can be written, and only stale reads are answered)"
    rows: list[tuple[object, ...]] = [
        (
            member.id,
            member.role,
            "yes" if member.reachable else "NO",
            *("-" if value is None else value for value in (member.applied_index, member.lag, member.missing_chunks)),
            _formats(member.formats),
            member.url,
            member.peer,
        )
        for member in found.members
    ]
    head = ("ID", "ROLE", "REACHABLE", "APPLIED", "LAG", "MISSING", "FORMATS", "URL", "PEER")
    return [
        f"cluster {found.cluster_id}: leader {leader}, term {found.term}, revision {found.revision}, "
        f"format {'-' if found.format is None else found.format}, quorum {health}",
        *output.columns([head, *rows], right=[3, 4, 5]),
        *(
            f"{member.id} refuses the node that answered: {member.refused}"
            for member in found.members
            if member.refused
        ),
    ]


def _formats(understood: FormatRange | None) -> str:
    if understood is None:
        return "-"
    return str(understood.max) if understood.min == understood.max else f"{understood.min}-{understood.max}"
