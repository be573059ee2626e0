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
_options: dict[str, Any] = {}


def forget() -> None:
    """Start of a command line: nothing was chosen yet."""
    _endpoints.clear()
    _options.clear()


def _choose_endpoints(values: list[str] | None) -> list[str] | None:
    if values:
        _endpoints[:] = [part.strip() for value in values for part in value.split(",") if part.strip()]
    return values


def _choose_timeout(value: float | None) -> float | None:
    if value is not None:
        _options["deadline_s"] = value
    return value


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


def run(work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """Connect to the chosen endpoints, do ``work`` and return its result."""

    async def session() -> T:
        from raftfs.client import AsyncClient

        async with AsyncClient(_endpoints or None, **_options) as client:
            return await work(client)

    return asyncio.run(session())
