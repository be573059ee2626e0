"""Clients in processes of their own that put small files, as fast as they are answered or at a steady rate.

A pair of processes shares the clients, so that one of them is not the bottleneck. Each starts on a signal (a line on
its standard input), ends when its input ends, and prints a JSON line: when each acknowledged put began, how long it
took, and how many were not acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp

from bench.machine import ROOT

_PROCESSES = 2


@dataclass(frozen=True)
class Load:
    """``puts``: (when it began, on the clock ``time.monotonic``, and the seconds it took) of each acknowledged put, in
    the order in which they began. With a steady rate, a put begins when it is due, even if it is sent later."""

    puts: list[tuple[float, float]]
    seconds: float
    errors: int
    _sorted: list[float] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        self._sorted.extend(sorted(latency for _, latency in self.puts))

    @property
    def count(self) -> int:
        return len(self.puts)

    @property
    def rate(self) -> float:
        """Acknowledged puts a second, over all clients."""
        return self.count / self.seconds

    def latency_s(self, share: float) -> float:
        """The latency that this share (0 to 1) of the puts did not exceed."""
        return self._sorted[min(int(self.count * share), self.count - 1)]

    def part(self, begin_s: float, end_s: float) -> Load:
        """Of the puts, those that began within this time; ``errors`` are of the whole."""
        return Load([put for put in self.puts if begin_s <= put[0] < end_s], end_s - begin_s, self.errors)

    def __str__(self) -> str:
        return (
            f"{self.rate:8.0f}/s   p50 {self.latency_s(0.5) * 1000:6.2f} ms   p99 {self.latency_s(0.99) * 1000:6.2f} ms"
            f"   ({self.count} puts, {self.errors} errors)"
        )


class Writers:
    """What ``running`` gives; its ``result`` is there when they have ended."""

    result: Load


@contextmanager
def running(url: str, *, clients: int, size_bytes: int, rate: float | None = None) -> Iterator[Writers]:
    """Puts of ``size_bytes``, each with a name and content of its own, from ``clients`` connections, as long as the
    context lasts. ``rate``: puts a second that all of them together begin; None: each begins when the last ended."""
    share = [clients // _PROCESSES + (number < clients % _PROCESSES) for number in range(_PROCESSES)]
    pause_s = clients / rate if rate else 0.0
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.load", url, str(own), str(size_bytes), str(pause_s)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in share
        if own
    ]
    writers = Writers()
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it has connected
        begun = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield writers
    finally:
        for process in processes:  # all at once, before anybody waits for one of them
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
    elapsed_s = time.monotonic() - begun
    results = [json.loads(process.communicate()[0]) for process in processes]
    puts = sorted((begin, latency) for result in results for begin, latency in result["puts"])
    writers.result = Load(puts, elapsed_s, sum(result["errors"] for result in results))


def run(url: str, *, clients: int, size_bytes: int, seconds: float) -> Load:
    """As ``running``, for so many seconds."""
    with running(url, clients=clients, size_bytes=size_bytes) as writers:
        time.sleep(seconds)
    return writers.result


class _Clients:
    def __init__(self, url: str, size_bytes: int, pause_s: float) -> None:
        self._url, self._pause_s = url, pause_s
        self._data = os.urandom(max(0, size_bytes - 23))
        self._ended = asyncio.Event()
        self.puts: list[tuple[float, float]] = []
        self.errors = 0

    def end(self) -> None:
        self._ended.set()

    async def client(self, session: aiohttp.ClientSession, offset: float) -> None:
        """``offset``: the part of its pause (0 to 1) after which it begins, so that not all begin at once."""
        prefix, number = os.urandom(6).hex(), 0
        due_s = time.monotonic() + offset * self._pause_s
        while not self._ended.is_set():
            number += 1
            if self._pause_s:
                await asyncio.sleep(due_s - time.monotonic())
            begun_s = due_s if self._pause_s else time.monotonic()
            body = f"{prefix}/{number:010}".encode() + self._data
            async with session.put(f"{self._url}/v1/files/bench-{prefix}-{number}", data=body) as answer:
                await answer.read()
                if answer.status == 201:
                    self.puts.append((begun_s, time.monotonic() - begun_s))
                else:
                    self.errors += 1
            due_s += self._pause_s


async def _main(url: str, clients: int, size_bytes: int, pause_s: float) -> None:
    work = _Clients(url, size_bytes, pause_s)
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:
        await asyncio.gather(*(_warm(session, url) for _ in range(clients)))
        print("ready", flush=True)
        sys.stdin.readline()
        loop.add_reader(sys.stdin, work.end)  # nothing more is written to it: its end
        await asyncio.gather(*(work.client(session, number / clients) for number in range(clients)))
    print(json.dumps({"puts": work.puts, "errors": work.errors}))


async def _warm(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(url + "/livez") as answer:
        await answer.read()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
