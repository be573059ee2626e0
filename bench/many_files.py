"""What many small files cost a node: bytes on its disk, memory at rest, and the time from its start to ready."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench.machine import MB, print_header, scratch
from raftfs.client import AsyncClient
from raftfs.testing import LocalCluster

_CLIENTS = 32
_DIRECTORY_FILES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="how many are put (default 20000)")
    parser.add_argument("--size", type=int, default=4096, help="bytes of a file (default 4096)")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to use")
    options = parser.parse_args()
    print_header()
    with scratch(options.dir) as dir, LocalCluster(nodes=3, dir=dir / "cluster") as cluster:
        show("empty", cluster, None)
        begun = time.perf_counter()
        asyncio.run(put_all(cluster.url, options.files, options.size))
        took_s = time.perf_counter() - begun
        print(f"{options.files} files of {options.size} bytes, {_CLIENTS} at a time: {options.files / took_s:.0f}/s")
        for node in cluster.nodes:  # in order: each start checks its database and leaves no log that is applied already
            cluster.stop(node)
            begun = time.perf_counter()
            cluster.start(node)
            print(f"{node}: from its start to ready in {time.perf_counter() - begun:.2f} s")
        show("full", cluster, options.files)


async def put_all(url: str, files: int, size: int) -> None:
    """Put them all, each with bytes of its own."""
    numbers = iter(range(files))
    async with AsyncClient(url, deadline_s=120.0) as client:

        async def work(numbers: Iterator[int]) -> None:
            for number in numbers:
                name = f"/many/{number // _DIRECTORY_FILES}/file-{number:09}.bin"
                await client.write(name, os.urandom(size), parents=True)

        await asyncio.gather(*(work(numbers) for _ in range(_CLIENTS)))


def show(what: str, cluster: LocalCluster, files: int | None) -> None:
    for node in cluster.nodes:
        parts = {name: disk_bytes(cluster.data_dir(node), name) for name in ("state.db", "journal", "chunks")}
        shown = ", ".join(f"{name} {size / MB:.1f} MB" for name, size in parts.items())
        each = "" if files is None else f", the database {parts['state.db'] / files:.0f} bytes a file"
        print(f"{what}: {node} has {memory_bytes(cluster.pid(node)) / MB:.0f} MB in memory, on its disk {shown}{each}")


def disk_bytes(data_dir: Path, name: str) -> int:
    """Of what begins with that name, whole folders too."""
    found = [path for top in data_dir.glob(f"{name}*") for path in (top, *top.rglob("*"))]
    return sum(path.stat().st_blocks * 512 for path in found if path.is_file())


def memory_bytes(pid: int | None) -> int:
    """What a process has in memory now (VmRSS)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
