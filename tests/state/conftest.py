from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .driver import Driver


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    with Driver(tmp_path / "state.db") as driver:
        yield driver
