"""Clients in processes of their own that put small files as fast as they are answered.

A pair of processes shares the clients, so that one of them is not the bottleneck. Each starts on a signal (a line on
its standard input) and prints a JSON line: how many were acknowledged, the seconds it took, and each latency.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import aiohttp

from bench.machine import ROOT

_PROCESSES = 2


@dataclass(frozen=True)
class Load:
    """``rate``: acknowledged puts a second, over all clients. Latencies in seconds."""

    rate: float
    count: int
    median_s: float
    p99_s: float
    errors: int

    def __str__(self) -> str:
        return (
            f"{self.rate:8.0f}/s   p50 {self.median_s * 1000:6.2f} ms   p99 {self.p99_s * 1000:6.2f} ms   "
            f"({self.count} puts, {self.errors} errors)"
        )


def run(url: str, *, clients: int, size_bytes: int, seconds: float) -> Load:
    """Put files of ``size_bytes``, each with a name and content of its own, from ``clients`` connections."""
    share = [clients // _PROCESSES + (number < clients % _PROCESSES) for number in range(_PROCESSES)]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.load", url, str(number), str(own), str(size_bytes), str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, own in enumerate(share)
        if own
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # it has connected
    results = [json.loads(process.communicate()[0]) for process in _told(running)]
    latencies = sorted(latency for result in results for latency in result["latencies"])
    return Load(
        rate=sum(result["count"] / result["seconds"] for result in results),
        count=len(latencies),
        median_s=statistics.median(latencies),
        p99_s=latencies[int(len(latencies) * 0.99)],
        errors=sum(result["errors"] for result in results),
    )


def _told(running: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """All at once, before anybody waits for one of them."""
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return running


async def _client(session: aiohttp.ClientSession, url: str, data: bytes, until_s: float, latencies: list[float]) -> int:
    errors = number = 0
    prefix = os.urandom(6).hex()
    while (begun := time.perf_counter()) < until_s:
        number += 1
        body = f"{prefix}/{number:010}".encode() + data
        async with session.put(f"{url}/v1/files/bench-{prefix}-{number}", data=body) as answer:
            await answer.read()
            if answer.status == 201:
                latencies.append(time.perf_counter() - begun)
            else:
                errors += 1
    return errors


async def _main(url: str, clients: int, size_bytes: int, seconds: float) -> None:
    latencies: list[float] = []
    data = os.urandom(max(0, size_bytes - 23))
    connector = aiohttp.TCPConnector(limit=clients)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(_warm(session, url) for _ in range(clients)))
        print("ready", flush=True)
        sys.stdin.readline()
        begun = time.perf_counter()
        todo = [_client(session, url, data, begun + seconds, latencies) for _ in range(clients)]
        errors = sum(await asyncio.gather(*todo))
        elapsed_s = time.perf_counter() - begun
    print(json.dumps({"count": len(latencies), "seconds": elapsed_s, "errors": errors, "latencies": latencies}))


async def _warm(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url + "/livez") as answer:
        await answer.read()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
