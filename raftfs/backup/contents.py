"""Contents of files out of a backup, compared with their digests before anything is made of them."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator

from blake3 import blake3

from raftfs import limits
from raftfs.backup.manifest import Chunk, File
from raftfs.backup.store import Source
from raftfs.client.body import Body
from raftfs.errors import CorruptData


class Contents:
    """Reads chunks of a source; the bundles that were used last are kept. Thread-safe."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._bundles: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, chunk: Chunk) -> bytes:
        """Raises NotFound, CorruptData, OSError."""
        if not chunk.bundle:
            data = self._source.read_object(chunk.digest)
        else:
            data = self._bundle(chunk.bundle)[chunk.at : chunk.at + chunk.length]
        if len(data) != chunk.length or blake3(data).hexdigest() != chunk.digest:
            raise CorruptData(f"object {chunk.object} of the backup is damaged: `raftfs backup verify` shows what is")
        return data

    def _bundle(self, digest: str) -> bytes:
        with self._lock:
            data = self._bundles.get(digest)
            if data is None:
                data = self._source.read_object(digest)
                self._bundles[digest] = data
                if len(self._bundles) > limits.BACKUP_BUNDLES_HELD_MAX:
                    self._bundles.popitem(last=False)
            self._bundles.move_to_end(digest)
            return data


class FileBody(Body):
    """The content of a file, from its first byte any number of times."""

    def __init__(self, contents: Contents, file: File) -> None:
        self._contents = contents
        self._chunks = file.chunks
        self.size = file.size

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            view = memoryview(await asyncio.to_thread(self._contents.read, chunk))
            for start in range(0, len(view), limits.CLIENT_BLOCK_BYTES):
                yield bytes(view[start : start + limits.CLIENT_BLOCK_BYTES])
