"""Put and get of one large file through the frontend, beside three dd with fdatasync at a time and a plain copy."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import statistics
import time
from contextlib import closing
from pathlib import Path

from bench.machine import MB, MIB, copy_seconds, dd_seconds, print_header, scratch
from raftfs.testing import LocalCluster

_TIMEOUT_S = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file in MiB (default 1024)")
    parser.add_argument("--rounds", type=int, default=3, help="of everything, one after the other (default 3)")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to use")
    options = parser.parse_args()
    print_header()
    figures: dict[str, list[float]] = {"put": [], "get": [], "dd": [], "cp": []}
    with scratch(options.dir) as dir:
        for _ in range(options.rounds):
            source = dir / "source"
            digest = _make(source, options.mib)
            # Turn and turn about: the speed of a shared disk changes from minute to minute.
            figures["dd"].append(dd_seconds(source, dir, copies=3))
            with LocalCluster(nodes=3, dir=dir / "cluster") as cluster:
                figures["put"].append(_put(cluster.url, source))
                figures["get"].append(_get(cluster.url, digest))
            shutil.rmtree(dir / "cluster")
            figures["cp"].append(copy_seconds(source, dir))
    size_mb = options.mib * MIB / MB
    for name, text in (
        ("put", "put through the frontend, durable on a majority"),
        ("dd", "three dd conv=fdatasync at a time"),
        ("get", "get through the frontend, verified"),
        ("cp", "cp, not synced"),
    ):
        rates = [size_mb / seconds for seconds in figures[name]]
        print(f"{text}: {' '.join(f'{rate:.0f}' for rate in rates)} MB/s, median {statistics.median(rates):.0f}")
    median = {name: statistics.median(seconds) for name, seconds in figures.items()}
    print(f"put / dd: {median['dd'] / median['put']:.2f}   get / cp: {median['cp'] / median['get']:.2f}")


def _make(path: Path, mib: int) -> str:
    hasher = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mib):
            block = os.urandom(MIB)
            hasher.update(block)
            file.write(block)
        os.fsync(file.fileno())
    return hasher.hexdigest()


def _connect(url: str) -> http.client.HTTPConnection:
    host, port = url.removeprefix("http://").split(":")
    return http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S, blocksize=MIB)


def _put(url: str, source: Path) -> float:
    with closing(_connect(url)) as connection, source.open("rb") as file:
        begun = time.perf_counter()
        size = str(source.stat().st_size)
        connection.request("PUT", "/v1/files/large", body=file, headers={"Content-Length": size})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status not in (200, 201):
            raise RuntimeError(f"the put was answered {answer.status}: {said!r}")
        return time.perf_counter() - begun


def _get(url: str, digest: str) -> float:
    """Only reading is timed; that the bytes are right is checked by a second get."""
    with closing(_connect(url)) as connection:
        begun = time.perf_counter()
        connection.request("GET", "/v1/files/large")
        answer = connection.getresponse()
        while answer.read(MIB):
            pass
        elapsed_s = time.perf_counter() - begun
        hasher = hashlib.sha256()
        connection.request("GET", "/v1/files/large")
        answer = connection.getresponse()
        while block := answer.read(MIB):
            hasher.update(block)
    if hasher.hexdigest() != digest:
        raise RuntimeError("the bytes that came back are not those that were put")
    return elapsed_s


if __name__ == "__main__":
    main()
