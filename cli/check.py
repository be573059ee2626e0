"""``raftfs node check`` and ``raftfs frontend check``: whether a configuration is fit, before it is put in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftfs_cli import output

if TYPE_CHECKING:
    from raftfs.config import FrontendConfig, NodeConfig

Files = Annotated[
    bool, typer.Option("--files", help="Load what it names, too: certificates and, of a node, the data directory.")
]


def register(node_app: typer.Typer, frontend_app: typer.Typer) -> None:
    node_app.command("check")(check_node)
    frontend_app.command("check")(check_frontend)


def check_node(
    config: Annotated[Path, typer.Option("--config", "-c", help="TOML file with the keys of NodeConfig.")],
    files: Files = False,
    json: output.Json = False,
) -> None:
    """Say whether a node would accept this configuration. Changes nothing, and the node may be running.

    Without --files, nothing that it names has to be there yet.
    """
    from raftfs.config import NodeConfig

    values = NodeConfig.load(config)
    notes: list[str] = []
    if files:
        from raftfs.service.check import check_files

        notes = check_files(values)
    _say(config, _of_node(values), files, notes, json)


def check_frontend(
    config: Annotated[Path, typer.Option("--config", "-c", help="TOML file with the keys of FrontendConfig.")],
    files: Files = False,
    json: output.Json = False,
) -> None:
    """Say whether a frontend would accept this configuration.

    Without --files, nothing that it names has to be there yet.
    """
    from raftfs.config import FrontendConfig

    values = FrontendConfig.load(config)
    if files:
        from raftfs.frontend.run import load_certificates

        load_certificates(values)
    _say(config, _of_frontend(values), files, [], json)


def _of_node(values: NodeConfig) -> dict[str, Any]:
    return {
        "kind": "node",
        "id": values.id,
        "cluster_id": values.cluster_id,
        "data_dir": str(values.data_dir),
        "client_address": values.client_address,
        "peer_address": values.peer_address,
        "insecure": values.insecure,
        "members": [member.model_dump() for member in values.members],
    }


def _of_frontend(values: FrontendConfig) -> dict[str, Any]:
    return {"kind": "frontend", "listen": values.listen, "insecure": values.insecure, "nodes": values.nodes}


def _say(config: Path, values: dict[str, Any], files: bool, notes: list[str], json: bool) -> None:
    if json:
        output.emit_json({"ok": True, "config": str(config), **values, "files": files, "notes": notes})
        return
    if values["kind"] == "node":
        what = f"node {values['id']} of cluster {values['cluster_id']}, {len(values['members'])} members"
    else:
        what = f"frontend of {len(values['nodes'])} nodes"
    looked = "its files were loaded" if files else "its files were not looked at"
    output.emit(*(f"note: {note}" for note in notes), f"{config} is good: {what}; {looked}")
