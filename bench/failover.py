"""How long a write through the frontend waits when the leader is killed, frozen or stopped.

In each round the leader gets a signal, and a client begins a write at once, and again until one is acknowledged. A
leader that is stopped in order (SIGTERM) goes on for a moment, so there writes follow each other until its process is
gone, and the one that waited longest counts. All of it idle, and while other clients write.
"""

from __future__ import annotations

import argparse
import http.client
import math
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from bench import load
from bench.frame import SIZE_BYTES, measured
from raftfs.testing import LocalCluster

_SIGNALS = {"killed (SIGKILL)": signal.SIGKILL, "frozen (SIGSTOP)": signal.SIGSTOP, "stopped (SIGTERM)": signal.SIGTERM}
_TIMEOUT_S = 30.0
_GONE_S_MAX = 30.0
_REST_S = 1.0  # between rounds: the next one has all three again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=16, help="of the load")
    with measured(parser) as (cluster, options):
        print("| the leader is | beside | median | p90 | worst | an ordinary write | rounds | load |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for clients in (0, options.clients):
            for what, number in _SIGNALS.items():
                with _load(cluster.url, clients):
                    _measure(cluster, what, number, clients, options.rounds)


def _measure(cluster: LocalCluster, what: str, number: int, clients: int, rounds: int) -> None:
    time.sleep(_REST_S)
    usual = statistics.median(_write(cluster.url, f"/usual-{what}-{clients}-{count}") for count in range(50))
    seconds = sorted(_fail_once(cluster, number, f"{what}-{clients}-{round}") for round in range(rounds))
    beside = f"{clients} clients that write" if clients else "nothing"
    p90 = seconds[math.ceil(0.9 * len(seconds)) - 1]
    figures = " | ".join(f"{one:.3f} s" for one in (statistics.median(seconds), p90, seconds[-1]))
    print(
        f"| {what} | {beside} | {figures} | {usual * 1000:.1f} ms | {rounds} | {os.getloadavg()[0]:.1f} |", flush=True
    )


def _fail_once(cluster: LocalCluster, number: int, name: str) -> float:
    """Seconds that the write waited which waited longest."""
    leader = cluster.leader()
    _write(cluster.url, f"/before-{name}")
    process = cluster.process(leader)
    assert process is not None
    process.send(number)
    waited = [_write_until_acknowledged(cluster.url, f"/after-{name}")]
    while number == signal.SIGTERM and process.alive:
        waited.append(_write_until_acknowledged(cluster.url, f"/after-{name}-{len(waited)}"))
    if number == signal.SIGSTOP:
        cluster.resume(leader)
        cluster.wait_ready(leader)
    else:
        assert process.wait_gone(_GONE_S_MAX)
        cluster.start(leader)
    time.sleep(_REST_S)
    return max(waited)


def _write_until_acknowledged(url: str, path: str) -> float:
    begun = time.perf_counter()
    tries = 0
    while _write(url, f"{path}-{tries}") < 0:
        tries += 1
    return time.perf_counter() - begun


def _write(url: str, path: str) -> float:
    """Seconds until the acknowledgement; negative if there was another answer."""
    host, port = url.removeprefix("http://").split(":")
    begun = time.perf_counter()
    with closing(http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)) as connection:
        connection.request("PUT", "/v1/files" + path.replace(" ", "-"), body=b"x" * SIZE_BYTES)
        answer = connection.getresponse()
        answer.read()
        return time.perf_counter() - begun if answer.status in (200, 201) else -1.0


@contextmanager
def _load(url: str, clients: int) -> Iterator[None]:
    if not clients:
        yield
        return
    with load.running(url, clients=clients, size_bytes=SIZE_BYTES) as running:
        yield
    result = running.result
    if result.errors:
        print(f"(of the load's writes, {result.errors} of {result.count + result.errors} failed)")


if __name__ == "__main__":
    main()
