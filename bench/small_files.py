"""Durable puts of small files through the frontend, beside the disk's sync rate and a plain aiohttp server."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import load
from bench.machine import echo_server, print_header, scratch, syncs_per_second
from raftfs.testing import LocalCluster


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--size", type=int, default=4096, help="bytes of a file (default 4096)")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default 10)")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to use")
    options = parser.parse_args()
    print_header()

    def measure(url: str) -> load.Load:
        return load.run(url, clients=options.clients, size_bytes=options.size, seconds=options.seconds)

    with scratch(options.dir) as dir:
        before = syncs_per_second(dir, options.size)
        with echo_server() as url:
            echo = measure(url)
        with LocalCluster(nodes=3, dir=dir / "cluster") as cluster:
            frontend = measure(cluster.url)
            leader = measure(cluster.url_of(cluster.leader()))
        after = syncs_per_second(dir, options.size)
    syncs = (before + after) / 2
    what = f"put of {options.size} bytes, {options.clients} clients"
    print(f"{what}, through the frontend: {frontend}")
    print(f"{what}, to the leader itself: {leader}")
    print(f"{what}, plain aiohttp server: {echo}")
    print(f"fdatasync of {options.size} bytes, one after the other: {before:.0f}/s before, {after:.0f}/s after")
    print(f"frontend / fdatasync: {frontend.rate / syncs:.2f}   frontend / aiohttp: {frontend.rate / echo.rate:.3f}")


if __name__ == "__main__":
    main()
