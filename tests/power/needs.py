"""What tests that mount a file system need, and how they say that they did not run."""

from __future__ import annotations

import os

import pytest

_REASON = "needs root, FUSE and minutes: set RAFTFS_TEST_POWER=1"

ROOT = [
    pytest.mark.system,
    pytest.mark.skipif(not os.environ.get("RAFTFS_TEST_POWER"), reason=_REASON),
    pytest.mark.timeout(1200),
]
"""With RAFTFS_TEST_POWER=1 they run, and fail where the machine cannot do it."""
