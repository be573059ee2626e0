"""What differs between format versions: which commands and fields came with each, and what it changed in the tables.

The *active* version is part of the replicated state. Whatever depends on a version asks for that one, never for the
newest one that this code understands; then code of two ages comes to the same state from the same log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from raftfs.state.commands import Command, SwitchVersion
from raftfs.versions import UNDECIDED

COMMANDS_SINCE: Final[Mapping[type[Command], int]] = {SwitchVersion: UNDECIDED}
"""Command to the format that brought it; 1 for those that are not here."""

FIELDS_SINCE: Final[Mapping[type[Command], Mapping[str, int]]] = {}
"""Command to its younger fields, each with the format that brought it."""

LAYOUT_CHANGES: Final[Mapping[int, tuple[str, ...]]] = {}
"""Format to the SQL statements that make its tables of those of the format before. They run in one transaction on every
node, when the cluster switches."""


def required_version(command: Command) -> int:
    """The oldest format in which ``command`` means what it says: that of its kind, or of its youngest field that has
    not its default value (older code does not see the field, and does what the default says)."""
    kind = type(command)
    needed = COMMANDS_SINCE.get(kind, 1)
    younger = FIELDS_SINCE.get(kind)
    if younger:
        defaults = {field.name: field.default for field in msgspec.structs.fields(kind)}
        needed = max([needed, *(version for name, version in younger.items() if _is_set(command, name, defaults))])
    return needed


def _is_set(command: Command, name: str, defaults: Mapping[str, Any]) -> bool:
    return bool(getattr(command, name) != defaults[name])
