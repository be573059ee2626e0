"""A node that acts on its term and its vote before they are durable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forgetful import Forgetful, run

run(Forgetful(data=lambda path: path.name == "term"))
