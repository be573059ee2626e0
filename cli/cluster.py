"""``raftfs cluster``: the members, the leader and their health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from raftfs.errors import NotFound, Unavailable
from raftfs_cli import connection, output

if TYPE_CHECKING:
    from raftfs.client import AsyncClient
    from raftfs.models import ClusterStatus, FormatRange, Member

_POLL_S: Final = 0.5

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


Force = Annotated[
    bool, typer.Option("--force", help="Even if the remaining members lack chunks: their bytes are lost.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the member has caught up, and votes.")]
Peer = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Its new peer address; default: the old one.")]
Url = Annotated[str | None, typer.Option(metavar="URL", help="Its new HTTP API; default: the old one.")]


@app.command()
def add(
    member: Annotated[str, typer.Argument(metavar="ID", help="Id of the new member, as in its configuration.")],
    peer: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where its peer port listens.")],
    url: Annotated[str, typer.Option(metavar="URL", help="Where its HTTP API answers.")],
    wait: Wait = True,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Add a member. Start its node with an empty data directory; it votes once it has the log and every chunk."""
    _join(lambda client: client.cluster_add(member, peer, url), wait, json)


@app.command()
def replace(
    member: Annotated[str, typer.Argument(metavar="ID", help="Id of the member whose machine or disk is lost.")],
    peer: Peer = None,
    url: Url = None,
    force: Force = False,
    wait: Wait = True,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Let an empty machine take the place of a lost member. The old data directory is never listened to again."""
    _join(lambda client: client.cluster_replace(member, peer, url, force=force), wait, json)


@app.command()
def remove(
    member: Annotated[str, typer.Argument(metavar="ID", help="Id of the member that is to go.")],
    force: Force = False,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """End a membership. Stop the node and delete its data directory afterwards."""
    connection.run(lambda client: client.cluster_remove(member, force=force))
    if json:
        output.emit_json({"removed": member})
    else:
        output.emit(f"{member}: removed")


@app.command()
def transfer(
    to: Annotated[str | None, typer.Argument(metavar="ID", help="Who is to lead; default: the newest log.")] = None,
    json: output.Json = False,
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
) -> None:
    """Hand the leadership over; no write is lost."""

    async def work(client: AsyncClient) -> ClusterStatus:
        await client.cluster_transfer(to)
        return await client.cluster_status()

    found = connection.run(work)
    if json:
        output.emit_json({"leader": None if found.leader is None else found.leader.model_dump()})
    else:
        output.emit(f"leader: {found.leader.id if found.leader else 'not elected yet'}")


def _join(change: Callable[[AsyncClient], Awaitable[Member]], wait: bool, json: bool) -> None:
    """Make the change, and follow the new member until it votes."""

    async def work(client: AsyncClient) -> Member:
        member = await change(client)
        said = ""
        while wait and member.role == "learner":
            line = _progress(member)
            if line != said:
                output.say(line)
                said = line
            await asyncio.sleep(_POLL_S)
            with contextlib.suppress(Unavailable):
                found = {one.id: one for one in (await client.cluster_status()).members}
                if member.id not in found:
                    raise NotFound(f"{member.id} was removed meanwhile")
                member = found[member.id]
        return member

    member = connection.run(work)
    if json:
        output.emit_json(member.model_dump())
    else:
        output.emit(
            f"{member.id}: {member.role}" + ("" if member.role != "learner" else ", votes when it has caught up")
        )


def _progress(member: Member) -> str:
    if not member.reachable:
        reason = f" ({member.refused})" if member.refused else ""
        return f"{member.id}: waiting for its node at {member.peer}{reason}"
    return f"{member.id}: {member.lag} entries and {member.missing_chunks} chunks behind"


def _lines(found: ClusterStatus) -> list[str]:
    leader = found.leader.id if found.leader else "none"
    health = "yes" if found.quorum else "NO (nothing can be written, and only stale reads are answered)"
    rows: list[tuple[object, ...]] = [
        (
            member.id,
            "rejoining" if member.rejoining else member.role,
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
        *(f"{member.id} is rejoining: {member.rejoining}" for member in found.members if member.rejoining),
    ]


def _formats(understood: FormatRange | None) -> str:
    if understood is None:
        return "-"
    return str(understood.max) if understood.min == understood.max else f"{understood.min}-{understood.max}"
