"""A node that acknowledges chunks before their bytes are durable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from forgetful import Forgetful, run

run(Forgetful(data=lambda path: path.parent.name == "tmp"))
