"""What the machine can do, measured beside what raftfs does: a figure alone says nothing on another machine."""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

MB = 1_000_000
MIB = 1024 * 1024
_SYNC_S = 3.0
ROOT = Path(__file__).resolve().parents[1]


def print_header() -> None:
    """The command line and the machine."""
    print(f"command: python {shlex.join(sys.orig_argv[1:])}")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"machine: {os.cpu_count()} cores, Python {platform.python_version()}, {platform.release()}, load {load}")


@contextmanager
def scratch(dir: Path | None) -> Iterator[Path]:
    """A directory on the disk to measure, removed afterwards. ``dir`` None: where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="raftfs-bench-", dir=dir) as path:
        yield Path(path)


def syncs_per_second(dir: Path, size_bytes: int) -> float:
    """Appends of so many bytes, each followed by fdatasync, one after the other: what one log on this disk can do."""
    data, count = os.urandom(size_bytes), 0
    fd = os.open(dir / "syncs", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        begun = time.perf_counter()
        while (elapsed_s := time.perf_counter() - begun) < _SYNC_S:
            os.write(fd, data)
            os.fdatasync(fd)
            count += 1
    finally:
        os.close(fd)
        (dir / "syncs").unlink()
    return count / elapsed_s


def dd_seconds(source: Path, dir: Path, copies: int) -> float:
    """So many ``dd conv=fdatasync`` of one file at the same time: what as many durable copies cost without raftfs."""
    targets = [dir / f"dd-{number}" for number in range(copies)]
    begun = time.perf_counter()
    running = [
        subprocess.Popen(["dd", f"if={source}", f"of={target}", "bs=4M", "conv=fdatasync", "status=none"])
        for target in targets
    ]
    codes = [process.wait() for process in running]
    elapsed_s = time.perf_counter() - begun
    for target in targets:
        target.unlink()
    if any(codes):
        raise RuntimeError(f"dd ended with {codes}")
    return elapsed_s


def copy_seconds(source: Path, dir: Path) -> float:
    """``cp`` of a file, not synced: the file system's own speed."""
    target = dir / "copy"
    begun = time.perf_counter()
    subprocess.run(["cp", str(source), str(target)], check=True)
    elapsed_s = time.perf_counter() - begun
    target.unlink()
    return elapsed_s


@contextmanager
def echo_server() -> Iterator[str]:
    """A plain aiohttp server in a process of its own that reads a body and answers it; its URL."""
    command = [sys.executable, "-m", "bench.machine"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _serve_echo() -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=await request.read(), status=201)

    runner = web.ServerRunner(web.Server(echo))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_echo())
