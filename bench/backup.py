"""Backup and restore of a tree of large and small files, beside cp and tar of the same bytes."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.machine import MB, MIB, print_header, scratch
from raftfs.testing import LocalCluster

_LARGE_BYTES = 64 * MIB
_SMALL_BYTES = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="in large files of 64 MiB (default 512)")
    parser.add_argument("--small", type=int, default=2000, help="files of 4 KiB (default 2000)")
    parser.add_argument("--rounds", type=int, default=3, help="of everything, one after the other (default 3)")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to use")
    options = parser.parse_args()
    print_header()
    figures: dict[str, list[float]] = {}
    with scratch(options.dir) as dir:
        size = _make(dir / "tree", options.mib, options.small)
        for number in range(options.rounds):
            _round(dir, number, figures)
    print(f"{size / MB:.0f} MB in {options.mib * MIB // _LARGE_BYTES} large and {options.small} small files")
    for name, seconds in figures.items():
        rates = " ".join(f"{size / MB / one:.0f}" for one in seconds)
        print(f"{name}: {rates} MB/s, median {size / MB / median(seconds):.0f}")
    for ours in ("create", "restore"):
        for theirs in ("cp and sync", "tar and sync"):
            print(f"{ours} / {theirs}: {median(figures[theirs]) / median(figures[ours]):.2f}")


def _make(top: Path, mib: int, small: int) -> int:
    dice = random.Random(1)
    (top / "small").mkdir(parents=True)
    for number in range(mib * MIB // _LARGE_BYTES):
        with (top / f"large-{number}").open("wb") as file:
            for _ in range(_LARGE_BYTES // MIB):
                file.write(os.urandom(MIB))
    for number in range(small):
        (top / "small" / str(number)).write_bytes(dice.randbytes(_SMALL_BYTES))
    os.sync()
    return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


def _round(dir: Path, number: int, figures: dict[str, list[float]]) -> None:
    """Turn and turn about: the speed of a shared disk changes from minute to minute."""

    def measure(name: str, work: Callable[[], object]) -> None:
        begun = time.perf_counter()
        work()
        figures.setdefault(name, []).append(time.perf_counter() - begun)

    out = dir / f"out-{number}"
    out.mkdir()
    measure("cp and sync", lambda: _synced("cp", "-r", dir / "tree", out / "copy"))
    measure("tar and sync", lambda: _synced("tar", "-C", dir, "-cf", out / "tree.tar", "tree"))
    with LocalCluster(nodes=3, dir=dir / f"one-{number}") as cluster:
        _raftfs(cluster, "put", "-q", "-r", dir / "tree", "/tree")
        measure("create", lambda: _raftfs(cluster, "backup", "create", out / "backups"))
        measure("create again", lambda: _raftfs(cluster, "backup", "create", out / "backups"))
        measure("create as tar, not synced", lambda: _stream(cluster, out / "stream"))
        measure("verify", lambda: _raftfs(cluster, "backup", "verify", out / "backups"))
    with LocalCluster(nodes=3, dir=dir / f"two-{number}") as cluster:
        measure("restore", lambda: _raftfs(cluster, "backup", "restore", out / "backups"))
    for left in (out, dir / f"one-{number}", dir / f"two-{number}"):
        _run("rm", "-r", left)


def _raftfs(cluster: LocalCluster, *words: object) -> None:
    _run(sys.executable, "-m", "raftfs_cli", *words, env={**os.environ, "RAFTFS_ENDPOINTS": cluster.url})


def _stream(cluster: LocalCluster, target: Path) -> None:
    words = [sys.executable, "-m", "raftfs_cli", "backup", "create", "-"]
    with target.open("wb") as file:
        environment = {**os.environ, "RAFTFS_ENDPOINTS": cluster.url}
        subprocess.run(words, stdout=file, stderr=subprocess.DEVNULL, env=environment, check=True)


def _synced(*words: object) -> None:
    _run(*words)
    os.sync()


def _run(*words: object, env: dict[str, str] | None = None) -> None:
    subprocess.run([str(word) for word in words], stdout=subprocess.DEVNULL, env=env, check=True)


if __name__ == "__main__":
    main()
