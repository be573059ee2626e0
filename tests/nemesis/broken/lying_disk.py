"""A node whose disk, whenever its process starts, has lost the last that was fsynced (as if by a power cut)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from raftfs.config import NodeConfig
from raftfs_cli.main import main

_LOST_BYTES = 64 * 1024
_HEADER_BYTES = 32

data_dir = NodeConfig.load(Path(sys.argv[sys.argv.index("--config") + 1])).data_dir
segments = sorted((data_dir / "journal").glob("*.segment"))
if segments:
    for file in data_dir.glob("state.db*"):
        file.unlink()  # it is made again from the journal, and must not show what the journal has lost
    os.truncate(segments[-1], max(_HEADER_BYTES, segments[-1].stat().st_size - _LOST_BYTES))
main()
