"""A node that acknowledges entries which are in the page cache alone."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forgetful import Forgetful, run

run(Forgetful(data=lambda path: path.suffix == ".segment"))
