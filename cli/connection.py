"""Which servers a command talks to, and for how long: ``--endpoint`` and ``--timeout``, before or after the command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from raftfs.client import AsyncClient

T = TypeVar("T")

_endpoints: list[str] = []
_files: dict[str, Any] = {}
_options: dict[str, Any] = {}


def forget() -> None:
    """Start of a command line: nothing was chosen yet."""
    _endpoints.clear()
    _files.clear()
    _options.clear()


def _choose_endpoints(values: list[str] | None) -> list[str] | None:
    if values:
        _endpoints[:] = [part.strip() for value in values for part in value.split(",") if part.strip()]
    return values


def _choose_timeout(value: float | None) -> float | None:
    if value is not None:
        _options["deadline_s"] = value
    return value


def _choose_file(option: typer.CallbackParam, value: str | None) -> str | None:
    if value is not None and option.name is not None:
        _files[option.name] = value
    return value


def _file(option: str, help: str) -> Any:
    return typer.Option(option, metavar="FILE", callback=_choose_file, help=help)


Ca = Annotated[
    str | None,
    _file("--ca", "PEM file with the CA of https servers. Default: RAFTFS_CA, else the CAs that this machine trusts."),
]
Cert = Annotated[
    str | None, _file("--cert", "PEM file with your certificate, for servers that demand one. Default: RAFTFS_CERT.")
]
Key = Annotated[
    str | None, _file("--key", "PEM file with its key, if that is not in the same file. Default: RAFTFS_KEY.")
]
Endpoint = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint",
        "-e",
        metavar="URL",
        callback=_choose_endpoints,
        help="A server to ask, a frontend or any node; repeat for several. "
        "Default: RAFTFS_ENDPOINTS (comma-separated), else http://127.0.0.1:7400.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", callback=_choose_timeout, help="Give up after this long (default 30)."
    ),
]


def endpoints() -> list[str]:
    """What --endpoint says; empty if the environment or the default decides."""
    return list(_endpoints)


def file_options() -> list[str]:
    """--ca, --cert and --key as they were given, to give them again."""
    return [word for name, path in _files.items() for word in (f"--{name}", path)]


def run(work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """Connect to the chosen endpoints, do ``work`` and return its result."""

    async def session() -> T:
        from raftfs.client import AsyncClient

        async with AsyncClient(_endpoints or None, **_files, **_options) as client:
            return await work(client)

    return asyncio.run(session())
