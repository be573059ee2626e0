"""The tables of the documentation name what the code has, with its defaults; and the limits page shows every limit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from raftfs.config import FrontendConfig, NodeConfig, RaftTimes

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
# Defaults that follow from other keys, in words.
DERIVED = {"client_listen": "from `url`", "peer_listen": "from `peer`", "times": "see below"} | dict.fromkeys(
    ("peer_tls", "client_tls", "tls", "nodes_tls"), "none"
)


def documented_keys(heading: str, text: str) -> dict[str, str]:
    """Key to documented default, of the first table under ``heading``."""
    section = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, flags=re.MULTILINE)
    return {key: default.strip() for key, default in rows}


def real_keys(model: type[BaseModel]) -> dict[str, str]:
    return {name: _default(name, field.default) for name, field in model.model_fields.items()}


def _default(name: str, value: Any) -> str:
    if name in DERIVED:
        return DERIVED[name]
    if value is PydanticUndefined:
        return "required"
    text = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`"


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("Configuration of a node", NodeConfig),
        ("The table `times`", RaftTimes),
        ("Configuration of a frontend", FrontendConfig),
    ],
)
def test_configuration_table_is_that_of_the_code(heading: str, model: type[BaseModel]) -> None:
    assert documented_keys(heading, OPERATIONS.read_text(encoding="utf-8")) == real_keys(model)


def test_a_wrong_table_is_seen() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    for wrong in (text.replace("| `15` |", "| `16` |"), text.replace("| `log_level` |", "| `loglevel` |")):
        assert documented_keys("Configuration of a frontend", wrong) != real_keys(FrontendConfig)
