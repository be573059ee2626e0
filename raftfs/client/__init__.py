"""The client library: a file store over HTTP that behaves like local files.

Calls with paths and bytes come in; HTTP requests to any node or frontend go out, and models or ``raftfs.errors`` come
back. ``AsyncClient`` is the one implementation; ``Client`` runs it on a private loop thread. Requests are retried over
all endpoints until a deadline: reads freely, writes under one idempotency key. What may never happen here: a write
that happens twice, two versions mixed in one download, a half-written file that becomes visible because of an
exception, or an unknown outcome reported as a failure. The server is never imported.
"""

from raftfs.client.aiofile import AsyncReader, AsyncTextReader, AsyncTextWriter, AsyncWriter
from raftfs.client.asyncclient import AsyncClient
from raftfs.client.file import WritableFile, WritableTextFile
from raftfs.client.options import Options
from raftfs.client.progress import Progress
from raftfs.client.sync import Client, connect
from raftfs.client.transfer import TreeSummary

__all__ = [
    "AsyncClient",
    "AsyncReader",
    "AsyncTextReader",
    "AsyncTextWriter",
    "AsyncWriter",
    "Client",
    "Options",
    "Progress",
    "TreeSummary",
    "WritableFile",
    "WritableTextFile",
    "connect",
]
