"""``raftfs doctor``: whether anything is wrong with a cluster, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from raftfs_cli import connection, exitcodes, output

if TYPE_CHECKING:
    from raftfs.client import AsyncClient
    from raftfs.client.doctor import Diagnosis, Finding


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(json: output.Json = False, endpoint: connection.Endpoint = None, timeout: connection.Timeout = None) -> None:
    """Ask every member of the cluster how it is; say what is wrong, where, and what to do. Exits with 1 if anything is.

    Needs to reach the members' own client ports. What may pass by itself is looked at more than once.
    """
    found = connection.run(_diagnose)
    if json:
        output.emit_json(found.as_json())
    else:
        output.emit(*_lines(found))
    if found.findings:
        raise typer.Exit(exitcodes.FAILURE)


async def _diagnose(client: AsyncClient) -> Diagnosis:
    from raftfs.client.doctor import diagnose

    return await diagnose(client)


def _lines(found: Diagnosis) -> list[str]:
    answering = sum(view.status is not None for view in found.views)
    head = f"cluster {found.cluster_id}: {answering} of {len(found.views)} members answer; "
    if not found.findings:
        return [head + "nothing is wrong"]
    return [head + f"{len(found.findings)} findings", *(line for one in found.findings for line in _shown(one))]


def _shown(finding: Finding) -> tuple[str, str]:
    return f"{finding.severity}: {finding.where}: {finding.what}", f"  do: {finding.do}"
