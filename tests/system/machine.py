"""What processes and disks hold: memory, open files, chunk files, temporary files, records of uploads."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from raftfs.chunks import hash_chunk
from raftfs.state import Reader
from raftfs.state.commands import ChunkRef
from raftfs.testing import LocalCluster

MIB = 1024 * 1024
_SAMPLE_S = 0.05
_PAGE_CHUNKS = 1000


def memory_bytes(pid: int, field: str) -> int:
    """A field of /proc/PID/status in bytes: VmRSS (now) or VmHWM (the most there ever was)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {field}")


def servers(cluster: LocalCluster) -> dict[str, int]:
    """Pid of every server that runs, by name."""
    pids = {name: cluster.pid(name) for name in [*cluster.nodes, "frontend"]}
    return {name: pid for name, pid in pids.items() if pid is not None}


class MemoryWatch:
    """Samples the resident memory of all servers while it is entered; ``peak`` is the kernel's own high-water mark."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._pids = servers(cluster)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.samples = 0
        self.sampled = dict.fromkeys(self._pids, 0)
        self.peak: dict[str, int] = {}

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            for name, pid in self._pids.items():
                self.sampled[name] = max(self.sampled[name], memory_bytes(pid, "VmRSS"))
            self.samples += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = {name: memory_bytes(pid, "VmHWM") for name, pid in self._pids.items()}

    def __str__(self) -> str:
        parts = [f"{name} {self.peak[name] / MIB:.0f} (sampled {self.sampled[name] / MIB:.0f})" for name in self.peak]
        return f"peak memory in MiB, {self.samples} samples: {', '.join(parts)}"


def chunk_files(data_dir: Path) -> dict[str, Path]:
    """The chunk files of one node, by their hexadecimal digest."""
    return {path.name: path for path in (data_dir / "chunks").glob("[0-9a-f][0-9a-f]/*")}


def leftovers(data_dir: Path) -> list[str]:
    """Temporary files of the chunk store, and anything else that is called so."""
    return sorted(str(p) for p in [*(data_dir / "chunks" / "tmp").iterdir(), *data_dir.rglob("*.tmp")])


def open_uploads(data_dir: Path) -> int:
    """Records of unfinished uploads in one node's state."""
    with closing(sqlite3.connect(f"file:{data_dir / 'state.db'}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT COUNT(*) FROM upload").fetchone()[0])


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _referenced(data_dir: Path) -> Iterator[ChunkRef]:
    """The chunks that one node's state refers to."""
    after = b""
    with closing(Reader(data_dir / "state.db")) as reader:
        while page := reader.chunks(after, _PAGE_CHUNKS):
            yield from page
            after = page[-1].digest


def check_chunks(data_dir: Path) -> int:
    """That the disk of one node holds every chunk its state refers to, each undamaged. How many there are."""
    files, number = chunk_files(data_dir), 0
    for ref in _referenced(data_dir):
        path = files.get(ref.digest.hex())
        assert path is not None, f"{data_dir} lacks chunk {ref.digest.hex()}"
        data = path.read_bytes()
        assert len(data) == ref.length, f"{path} has {len(data)} bytes instead of {ref.length}"
        assert hash_chunk(data) == ref.digest, f"{path} is damaged"
        number += 1
    return number


def orphans(data_dir: Path) -> set[str]:
    """Chunk files of one node that nothing refers to."""
    return set(chunk_files(data_dir)) - {ref.digest.hex() for ref in _referenced(data_dir)}


@dataclass(frozen=True)
class Footprint:
    """What a cluster holds, by server, where nothing may pile up."""

    chunks: dict[str, frozenset[str]]
    temporary: dict[str, list[str]]
    uploads: dict[str, int]
    files: dict[str, int]

    @classmethod
    def of(cls, cluster: LocalCluster) -> Footprint:
        dirs = {node: cluster.data_dir(node) for node in cluster.nodes}
        return cls(
            chunks={node: frozenset(chunk_files(path)) for node, path in dirs.items()},
            temporary={node: leftovers(path) for node, path in dirs.items()},
            uploads={node: open_uploads(path) for node, path in dirs.items()},
            files={name: open_files(pid) for name, pid in servers(cluster).items()},
        )

    def __str__(self) -> str:
        counts = {node: len(names) for node, names in self.chunks.items()}
        return (
            f"chunk files {counts}, temporary files {sum(map(len, self.temporary.values()))}, "
            f"upload records {self.uploads}, open file descriptors {self.files}"
        )
