"""``raftfs node run`` and ``raftfs frontend run``: one server in the foreground, until a signal or its own end."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from raftfs.errors import ConfigError
from raftfs_cli.serving import serve

node_app = typer.Typer(no_args_is_help=True, help="Run a node of a cluster, or check its configuration.")
frontend_app = typer.Typer(no_args_is_help=True, help="Run a frontend, which finds the leader and forwards to it.")

LogFormat = Annotated[
    Literal["plain", "json"], typer.Option("--log-format", help="How lines of the log (standard error) look.")
]
ExitWithStdin = Annotated[
    bool,
    typer.Option(
        "--exit-with-stdin", help="Stop when standard input ends: for a parent that must not leave servers behind."
    ),
]


@node_app.command("run")
def run_node(
    config: Annotated[Path, typer.Option("--config", "-c", help="TOML file with the keys of NodeConfig.")],
    log_format: LogFormat = "plain",
    exit_with_stdin: ExitWithStdin = False,
) -> None:
    """Run one node until it is told to stop (SIGTERM, SIGINT)."""
    from raftfs.config import NodeConfig

    values = NodeConfig.load(config)
    _set_up_logging(values.log_level, log_format, values.id)
    from raftfs.service.node import Node

    serve(Node(values), lambda node: node.wait(), exit_with_stdin)


@frontend_app.command("run")
def run_frontend(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with the keys of FrontendConfig.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to listen on (without --config).")] = None,
    node: Annotated[
        list[str] | None, typer.Option(help="URL of a node, any of the cluster; repeat for several.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow to listen beyond loopback without TLS.")] = False,
    log_format: LogFormat = "plain",
    exit_with_stdin: ExitWithStdin = False,
) -> None:
    """Run a frontend until it is told to stop (SIGTERM, SIGINT). Give --config, or --listen and --node."""
    from raftfs.config import FrontendConfig

    if config is not None:
        if listen or node or insecure:
            raise typer.BadParameter("give either --config or --listen, --node and --insecure, not both")
        values = FrontendConfig.load(config)
    elif listen and node:
        try:
            values = FrontendConfig(listen=listen, nodes=node, insecure=insecure)
        except ValueError as error:
            raise ConfigError(_first_problem(error)) from None
    else:
        raise typer.BadParameter("give --config FILE, or --listen HOST:PORT and --node URL")
    _set_up_logging(values.log_level, log_format, "frontend")
    from raftfs.frontend import Frontend

    async def until_told(frontend: Frontend) -> None:
        logging.getLogger("raftfs.frontend").info("frontend of %s: %s", ", ".join(values.nodes), frontend.url)
        await asyncio.Event().wait()

    serve(Frontend(values), until_told, exit_with_stdin)


def _first_problem(error: ValueError) -> str:
    """A pydantic error without its frills."""
    problems = getattr(error, "errors", None)
    return "; ".join(str(problem["msg"]) for problem in problems()) if problems else str(error)


class _JsonLines(logging.Formatter):
    """One JSON object a line; what a caller put into ``extra`` becomes fields."""

    _KNOWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def __init__(self, server: str) -> None:
        super().__init__()
        self._server = server

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname,
            "server": self._server,
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in self._KNOWN}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def _set_up_logging(level: str, log_format: str, server: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(_JsonLines(server))
    else:
        handler.setFormatter(
            logging.Formatter(
                f"%(asctime)s.%(msecs)03d %(levelname)-7s {server} %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S"
            )
        )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
