"""A disk that fails an fsync: the process ends at once, with a code and a message of its own, and never asks again."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raftfs.fsync import FSYNC_FAILED_EXIT
from raftfs.testing import LocalCluster
from raftfs.testing.processes import raftfs_environment

from .clusters import WAIT_S_MAX, running, settle, wait_until
from .ledger import Ledger, Writers, fetcher
from .web import ask

FAILING_NODE = """
import errno, sys
from pathlib import Path
from raftfs import fsync
from raftfs_cli.main import main

fails = Path(sys.argv[sys.argv.index("--config") + 1]).with_name("fails")

class Failing(fsync.Kernel):
    # As Linux does: the failure is reported once, the pages count as clean from then on, and a second call succeeds.

    def sync_data(self, fd, path):
        if fails.exists() and str(path).endswith(fails.read_text()):
            fails.rename(fails.with_name("failed"))
            raise OSError(errno.EIO, "Input/output error")
        super().sync_data(fd, path)

with fsync.simulated(Failing()):
    main()
"""


@contextmanager
def failing(cluster: LocalCluster, node: str, script: Path) -> Iterator[subprocess.Popen[str]]:
    """Let ``node``, which does not run, run until its disk fails."""
    config = cluster.dir / node / "raftfs.toml"
    process = subprocess.Popen(
        [sys.executable, str(script), "node", "run", "--config", str(config)],
        env=raftfs_environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("file", [".segment", "state.db-sums"])
def test_a_node_whose_fsync_fails_ends_and_comes_back_without_a_loss(file: str, tmp_path: Path) -> None:
    script = tmp_path / "failing_node.py"
    script.write_text(FAILING_NODE, encoding="utf-8")
    ledger = Ledger()
    with running(journal_segment_bytes=64 * 1024, journal_segments_kept=2) as cluster:
        node = next(name for name in cluster.nodes if name != cluster.leader())
        cluster.stop(node)
        with (
            Writers(ledger, cluster.url, seed=secrets.randbits(32), clients=3, large=False),
            failing(cluster, node, script) as process,
        ):
            wait_until("the node to serve", lambda: _serves(cluster, node))
            (cluster.dir / node / "fails").write_text(file)
            _, said = process.communicate(timeout=WAIT_S_MAX)
            assert process.returncode == FSYNC_FAILED_EXIT, said[-2000:]
            assert f"{file} failed: [Errno 5] Input/output error. Stopping now" in said
            assert (cluster.dir / node / "failed").exists()
            goal = ledger.acknowledged + 20
            wait_until("writes without it", lambda: ledger.acknowledged >= goal)
        cluster.start(node)
        settle(cluster)
        for name, url in cluster.node_urls.items():
            assert not ledger.check(fetcher(url)), f"through {name}"


def _serves(cluster: LocalCluster, node: str) -> bool:
    try:
        return ask(cluster.node_urls[node], "GET", "/readyz").status == 200
    except OSError:
        return False
