"""Every example of the documentation does what the page shows, against a real cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# As `make run` does, but in the background; the reader's first terminal.
START = "raftfs dev up --nodes 3 --port 7400 --detach"


@pytest.mark.parametrize(
    "name", ["README.md", "docs/python-api.md", "docs/http-api.md", "docs/cli.md", "docs/backup.md"]
)
def test_page_that_begins_with_a_running_cluster(name: str, examples: Callable[..., Any]) -> None:
    reader = examples(".raftfs-dev")
    reader.command(START, "...", name)
    reader.run((ROOT / name).read_text(encoding="utf-8"), name)


@pytest.mark.parametrize(
    "name", ["docs/tutorial.md", "docs/design/testing.md", "docs/operations.md", "docs/security.md"]
)
def test_page_that_starts_its_own_cluster(name: str, examples: Callable[..., Any]) -> None:
    examples("demo").run((ROOT / name).read_text(encoding="utf-8"), name)


def test_a_lie_about_a_real_cluster_is_seen(examples: Callable[..., Any]) -> None:
    reader = examples(".raftfs-dev")
    reader.command(START, "...", "page.md")
    reader.run("```console\n$ echo true | raftfs put - /a\nsent /a\n$ raftfs cat /a\ntrue\n```\n", "page.md")
    with pytest.raises(AssertionError, match=r"page\.md:2"):
        reader.run("```console\n$ raftfs cat /a\nfalse\n```\n", "page.md")
    with pytest.raises(AssertionError, match="exit code 3"):
        reader.run("```console\n$ raftfs cat /gone\n...\n```\n", "page.md")
