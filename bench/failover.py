"""Seconds from SIGKILL of the leader to the next acknowledged write through the frontend."""

from __future__ import annotations

import argparse
import http.client
import statistics
import time
from contextlib import closing
from pathlib import Path

from bench.machine import print_header, scratch, syncs_per_second
from raftfs.testing import LocalCluster

_TIMEOUT_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dir", type=Path, help="a directory on the disk to use")
    options = parser.parse_args()
    print_header()
    with scratch(options.dir) as dir:
        syncs = syncs_per_second(dir, 4096)
        with LocalCluster(nodes=3, dir=dir / "cluster") as cluster:
            usual = [_write(cluster.url, f"/usual{number}") for number in range(50)]
            seconds = [_kill_once(cluster, number) for number in range(options.rounds)]
    print(f"fdatasync of 4096 bytes: {1000 / syncs:.2f} ms")
    print(f"a write with everybody alive: median {statistics.median(usual) * 1000:.1f} ms")
    print(f"SIGKILL of the leader to the next acknowledged write: {' '.join(f'{one:.3f}' for one in seconds)} s")
    print(
        f"median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s of {len(seconds)}; "
        f"median / usual write: {statistics.median(seconds) / statistics.median(usual):.0f}"
    )


def _kill_once(cluster: LocalCluster, number: int) -> float:
    """The write is begun when the leader has just died, and again until it is acknowledged."""
    leader = cluster.leader()
    _write(cluster.url, f"/before{number}")
    process = cluster.process(leader)
    assert process is not None
    begun = time.perf_counter()
    process.send(9)
    attempt = 0
    while _write(cluster.url, f"/after{number}-{attempt}") < 0:
        attempt += 1
    elapsed_s = time.perf_counter() - begun
    assert process.wait_gone(10)
    cluster.start(leader)
    time.sleep(1)  # let it catch up: the next round has all three again
    return elapsed_s


def _write(url: str, path: str) -> float:
    """Seconds until the acknowledgement; negative if there was another answer."""
    host, port = url.removeprefix("http://").split(":")
    begun = time.perf_counter()
    with closing(http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)) as connection:
        connection.request("PUT", "/v1/files" + path, body=b"x" * 4096)
        answer = connection.getresponse()
        answer.read()
        return time.perf_counter() - begun if answer.status in (200, 201) else -1.0


if __name__ == "__main__":
    main()
