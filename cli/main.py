"""The ``raftfs`` command: its words, its global options, and what becomes of errors."""

from __future__ import annotations

import sys

import typer

from raftfs_cli import dev, exitcodes, output, server

app = typer.Typer(
    name="raftfs",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A consistent file store on three or five servers: `raftfs dev up` starts one on this machine.",
)
app.add_typer(dev.app, name="dev")
app.add_typer(server.node_app, name="node")
app.add_typer(server.frontend_app, name="frontend")


def main() -> None:
    """Entry point: run the command line of this process and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error has become a line on standard error."""
    try:
        code = app(args=arguments, prog_name="raftfs", standalone_mode=False)
    except Exception as error:
        return output.report(error)
    return code if isinstance(code, int) else exitcodes.OK
