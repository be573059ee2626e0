"""raftfs: a consistent file store on three or five servers, replicated with Raft.

``connect`` (or ``Client``) and ``AsyncClient`` speak to a cluster. ``Node`` with a ``NodeConfig`` is a server inside
your own asyncio program, ``LocalCluster`` a whole cluster of real processes for tests and demos. Each is imported when
it is used first, so a client never pays for a server, and ``import raftfs`` for neither. Errors are in
``raftfs.errors``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from raftfs import errors

if TYPE_CHECKING:
    from raftfs.client import AsyncClient, Client, connect
    from raftfs.config import NodeConfig
    from raftfs.service.node import Node
    from raftfs.testing import LocalCluster

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "LocalCluster", "Node", "NodeConfig", "connect", "errors"]

_LAZY = {
    "AsyncClient": "raftfs.client",
    "Client": "raftfs.client",
    "connect": "raftfs.client",
    "LocalCluster": "raftfs.testing",
    "Node": "raftfs.service.node",
    "NodeConfig": "raftfs.config",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
