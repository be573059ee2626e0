"""``python -m raftfs.testing.nemesis``."""

from __future__ import annotations

import sys

from raftfs.testing.nemesis.command import main

if __name__ == "__main__":
    sys.exit(main())
