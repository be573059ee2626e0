"""A node that knows members by name alone: one that lost its disk is taken for what it was, and votes as such."""

from __future__ import annotations

from raftfs.consensus.roster import Roster
from raftfs_cli.main import main


def _admit(self: Roster, name: str, uuid: str, fresh: bool) -> str | None:
    self._seen[name] = uuid
    if fresh:
        self._without_data.add(name)
    return None if name in self.book else f"{name!r} is not a member"


Roster.admit = _admit  # type: ignore[method-assign]
Roster.formed = property(lambda self: True)  # type: ignore[assignment,method-assign]
main()
