"""What the programs that watch writes to one cluster have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.machine import print_header, scratch, syncs_per_second
from raftfs.testing import LocalCluster

SIZE_BYTES = 4096
"""of the files that are written"""


@contextmanager
def measured(parser: argparse.ArgumentParser, **cluster: Any) -> Iterator[tuple[LocalCluster, argparse.Namespace]]:
    """Read the options of ``parser``, and ``--dir``; say what the machine is and what its disk does; run three nodes
    with these ``cluster`` options."""
    parser.add_argument("--dir", type=Path, help="a directory on the disk to use")
    options = parser.parse_args()
    print_header()
    with scratch(options.dir) as dir:
        print(f"fdatasync of {SIZE_BYTES} bytes: {1000 / syncs_per_second(dir, SIZE_BYTES):.2f} ms")
        with LocalCluster(nodes=3, dir=dir / "cluster", **cluster) as running:
            yield running, options
