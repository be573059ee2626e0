"""The ``raftfs`` command: its words, its global options, and what becomes of errors."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

import raftfs
from raftfs_cli import (
    backup,
    certs,
    check,
    cluster,
    connection,
    dev,
    doctor,
    exitcodes,
    files,
    fsck,
    output,
    recover,
    server,
    transfer,
)
from raftfs_cli.shell import run_shell

app = typer.Typer(
    name="raftfs",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 conflict, 5 unavailable, 6 unknown outcome, 7 denied, "
    "8 other version, 9 damaged data, 74 fsync failed.",
)
app.add_typer(dev.app, name="dev")
app.add_typer(server.node_app, name="node")
app.add_typer(server.frontend_app, name="frontend")
app.add_typer(cluster.app, name="cluster")
app.add_typer(certs.app, name="certs")
app.add_typer(backup.app, name="backup")
app.command()(fsck.fsck)
transfer.register(app)
files.register(app)
recover.register(app)
doctor.register(app)
check.register(server.node_app, server.frontend_app)


def _version(wanted: bool) -> None:
    if wanted:
        output.emit(f"raftfs {raftfs.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    endpoint: connection.Endpoint = None,
    timeout: connection.Timeout = None,
    ca: connection.Ca = None,
    cert: connection.Cert = None,
    key: connection.Key = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A consistent file store on three or five servers. `raftfs dev up` starts one on this machine."""


@app.command()
def shell(endpoint: connection.Endpoint = None, timeout: connection.Timeout = None) -> None:
    """Carry out commands line by line, from a terminal or a pipe; HELP lists them.

    Knows LIST, UPLD, UPLD+, DWLD, DELF, CONN and QUIT, and the file commands of this program.
    """
    raise typer.Exit(run_shell(run, connection.endpoints(), connection.file_options()))


def main() -> None:
    """Entry point: run the command line of this process and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error has become a line on standard error."""
    connection.forget()
    output.want_json(False)
    try:
        code = app(args=arguments, prog_name="raftfs", standalone_mode=False)
    except Exception as error:
        return output.report(error)
    return code if isinstance(code, int) else exitcodes.OK
