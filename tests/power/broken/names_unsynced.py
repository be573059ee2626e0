"""A node that never syncs a directory: files are safe, and their names are not."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forgetful import Forgetful, run

run(Forgetful(directory=lambda path: True))
