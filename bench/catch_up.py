"""A follower that is far behind comes back: how long it takes, and what it does to the latency of everybody's writes.

One follower is killed, and small files are written until it lacks so many entries of the log, which are cut off by
then. It is started again under a steady load through the frontend, whose latencies are told apart by phase and counted
from when a write was due. All processes share this machine's cores and disk. So the same is done twice: first with the
follower at the lowest priority, as its work would cost the others no time on a machine of its own; then, with its data
put back to what they were when it was killed, as any other process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import time
import urllib.request
from typing import Any

from bench import load
from bench.frame import SIZE_BYTES, measured
from bench.machine import MIB
from raftfs.testing import LocalCluster
from raftfs.testing.processes import raftfs_command

_SMALL_BYTES = 64
_SEGMENT_BYTES = MIB  # a short log, so that what the follower lacks is cut off
_FILLERS = 8  # few enough that nearly every write becomes an entry of its own
_LOWEST = ("nice", "-n", "19")
_POLL_S = 0.05
_SHARES = (0.5, 0.9, 0.99, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000, help="of the log that the follower lacks")
    parser.add_argument("--rate", type=float, default=100, help="writes a second of the steady load (default 100)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20, help="of each phase but the catching up itself")
    with measured(parser, journal_segment_bytes=_SEGMENT_BYTES) as (cluster, options):
        _measure(cluster, options)


def _measure(cluster: LocalCluster, options: argparse.Namespace) -> None:
    leader = cluster.leader()
    away = next(node for node in cluster.nodes if node != leader)
    with load.running(cluster.url, **_steady(options)) as all_three:
        time.sleep(options.seconds)
    cluster.kill(away)
    shutil.copytree(cluster.data_dir(away), cluster.dir / "as-killed")
    index, begun = _index(cluster), time.monotonic()
    with load.running(cluster.url_of(leader), clients=_FILLERS, size_bytes=_SMALL_BYTES):
        while (behind := _index(cluster) - index) < options.entries:
            time.sleep(_POLL_S)
    begins = _first_segment(cluster, leader)
    assert begins > 1, "nothing was cut off the log: --entries has to be more"
    print(
        f"{away} lacks {behind} entries of {time.monotonic() - begun:.0f} s; the log of {leader} begins at "
        f"its segment {begins}, its database has {(cluster.data_dir(leader) / 'state.db').stat().st_size / 1e6:.0f} MB"
    )
    print(f"| {options.rate:.0f} writes a second of {SIZE_BYTES} bytes | writes | p50 | p90 | p99 | max |")
    print("| --- | --- | --- | --- | --- | --- |")
    _print_row("all three there, an empty store", all_three.result)
    _catch_up(cluster, away, options, "at the lowest priority", _LOWEST)
    cluster.kill(away)
    shutil.rmtree(cluster.data_dir(away))
    (cluster.dir / "as-killed").rename(cluster.data_dir(away))  # the other two are whole and stay
    _catch_up(cluster, away, options, "at the same priority as all", ())


def _steady(options: argparse.Namespace) -> dict[str, Any]:
    return {"clients": options.clients, "size_bytes": SIZE_BYTES, "rate": options.rate}


def _catch_up(
    cluster: LocalCluster, away: str, options: argparse.Namespace, how: str, priority: tuple[str, ...]
) -> None:
    written = cluster.log_path(away).stat().st_size
    with load.running(cluster.url, **_steady(options)) as writers:
        marks = [time.monotonic()]
        time.sleep(options.seconds)
        marks.append(time.monotonic())
        cluster.start(away, wait=False, program=[*priority, *raftfs_command()])
        while not _is_level(cluster, away):
            time.sleep(_POLL_S)
        marks.append(time.monotonic())
        time.sleep(options.seconds)
        marks.append(time.monotonic())
    assert b"installing the snapshot" in cluster.log_path(away).read_bytes()[written:], "caught up without a snapshot"
    parts = [writers.result.part(*span) for span in itertools.pairwise(marks)]
    for what, part in zip(("one away", f"it catches up {how}", "afterwards"), parts, strict=True):
        _print_row(what, part)
    print(f"{away}, started {how}, was level after {marks[2] - marks[1]:.1f} s; not acknowledged: "
          f"{writers.result.errors}; load of the machine {os.getloadavg()[0]:.1f}")  # fmt: skip


def _print_row(what: str, part: load.Load) -> None:
    figures = " | ".join(f"{part.latency_s(share) * 1000:.1f} ms" for share in _SHARES)
    print(f"| {what} | {part.count} | {figures} |")


def _status(cluster: LocalCluster) -> dict[str, Any]:
    with urllib.request.urlopen(f"{cluster.url}/v1/cluster", timeout=10) as answer:
        value: dict[str, Any] = json.load(answer)
    return value


def _index(cluster: LocalCluster) -> int:
    return int(_status(cluster)["applied_index"])


def _is_level(cluster: LocalCluster, node: str) -> bool:
    """Whether a node has applied all that is committed, and lacks no chunk."""
    member = next(member for member in _status(cluster)["members"] if member["id"] == node)
    return bool(member["lag"] == 0 and member["missing_chunks"] == 0)


def _first_segment(cluster: LocalCluster, node: str) -> int:
    return min(int(path.stem) for path in (cluster.data_dir(node) / "journal").glob("*.segment"))


if __name__ == "__main__":
    main()
