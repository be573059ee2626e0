"""The next release of raftfs, made from this one: a copy of its code with the next format and something new behind it.

What is new is what a real release may bring: a command (``Stamp``) with a table of its own, a field of an old command
(``label`` of MakeDirectory), another wording of an error, and fields in a greeting, a Raft message and a status, which
the old release has to skip. The HTTP API of the copy reaches command and field: making a directory whose name ends in
``-labelled`` or ``-stamped``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import raftfs
import raftfs_cli
from raftfs.versions import FORMAT_VERSION

NEXT_FORMAT = FORMAT_VERSION + 1
Edit = tuple[str, str, str]
"""File within the package raftfs, text that stands there once, text in its place."""

NEXT: Sequence[Edit] = (
    ("versions.py", f"FORMAT_VERSION: Final = {FORMAT_VERSION}\n", f"FORMAT_VERSION: Final = {NEXT_FORMAT}\n"),
    ("consensus/peers.py", "\n\n\nclass Welcome(", '\n    colour: str = "red"\n\n\nclass Welcome('),
    ("consensus/messages.py", "\n\n\nclass Behind(", "\n    hint: int = 7\n\n\nclass Behind("),
    ("service/cluster.py", "\n\n\n_encoder =", '\n    mood: str = "sunny"\n\n\n_encoder ='),
    (
        "state/commands.py",
        "    parents: bool = False\n    exist_ok: bool = False\n",
        '    parents: bool = False\n    exist_ok: bool = False\n    label: str = ""\n',
    ),
    (
        "state/commands.py",
        "\nCommand = (\n    MakeDirectory |",
        "\nclass Stamp(_Command, frozen=True):\n    path: str\n\n\nCommand = (\n    Stamp | MakeDirectory |",
    ),
    (
        "state/versions.py",
        "{SwitchVersion: UNDECIDED}",
        f"{{SwitchVersion: UNDECIDED, commands.Stamp: {NEXT_FORMAT}}}",
    ),
    (
        "state/versions.py",
        "Mapping[str, int]]] = {}",
        f'Mapping[str, int]]] = {{commands.MakeDirectory: {{"label": {NEXT_FORMAT}}}}}',
    ),
    (
        "state/versions.py",
        "tuple[str, ...]]] = {}",
        f'tuple[str, ...]]] = {{{NEXT_FORMAT}: ("CREATE TABLE stamp (path TEXT, time_ms INTEGER)",)}}',
    ),
    (
        "state/versions.py",
        "import Command, SwitchVersion",
        "import Command, SwitchVersion\nfrom raftfs.state import commands",
    ),
    (
        "state/machine.py",
        "            SwitchVersion: self._switch_version,\n        }\n",
        "            SwitchVersion: self._switch_version,\n"
        "        }\n"
        "        from raftfs.state.commands import Stamp\n"
        "        self._handlers[Stamp] = self._stamp\n"
        "        self._handlers[MakeDirectory] = self._make_directory\n",
    ),
    (
        "state/machine.py",
        "    def _refusal(self",
        "    def _stamp(self, command):\n"
        "        self._db.execute('INSERT INTO stamp VALUES (?, ?)', (command.path, self._meta.clock_ms))\n"
        "        return Result(Code.OK, self._meta.next_revision())\n"
        "\n"
        "    def _make_directory(self, command):\n"
        "        made = self._tree.make_directory(command)\n"
        "        if command.label:\n"
        "            self._tree.set_metadata(SetMetadata(command.path, {'label': command.label}))\n"
        "        return made\n"
        "\n"
        "    def _refusal(self",
    ),
    ("state/tree.py", 'NOT_FOUND, f"nothing is at {path}"', 'NOT_FOUND, f"there is nothing at {path}"'),
    (
        "service/files.py",
        "        command = MakeDirectory(path=normalize(path), parents=parents, exist_ok=exist_ok)\n"
        "        result = await self._propose(command, write)\n",
        "        label = 'new' if path.endswith('-labelled') else ''\n"
        "        command = MakeDirectory(path=normalize(path), parents=parents, exist_ok=exist_ok, label=label)\n"
        "        result = await self._propose(command, write)\n"
        "        if path.endswith('-stamped'):\n"
        "            from raftfs.state.commands import Stamp\n"
        "            await self._proposer.propose(Stamp(command.path))\n",
    ),
)

HASTY: Edit = (
    "service/versions.py",
    "newest = min(member.max for member in known)",
    "newest = max(member.max for member in known)",
)
"""A leader that does not wait for the members that run older code."""


@dataclass(frozen=True)
class Release:
    """A copy of the code. ``program`` is its ``raftfs`` command, for ``LocalCluster.start``."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    @property
    def program(self) -> list[str]:
        # env becomes the command that it starts
        return ["env", f"PYTHONPATH={self.folder}", sys.executable, "-P", "-m", "raftfs_cli"]


def make_release(folder: Path, *edits: Edit) -> Release:
    """This code, edited. AssertionError if an edit does not fit the code any more."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(raftfs.__file__).parent, folder / "raftfs", ignore=ignore)
    shutil.copytree(Path(raftfs_cli.__file__).parent, folder / "raftfs_cli", ignore=ignore)
    for name, old, new in edits:
        path = folder / "raftfs" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {text.count(old)} times: {old}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    return Release(folder)
