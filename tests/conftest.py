"""Shared by all tests: which of them run real processes, and so run one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SYSTEM_FOLDERS = (HERE / "system", HERE / "damage", HERE / "docs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in SYSTEM_FOLDERS):
            item.add_marker(pytest.mark.system)
