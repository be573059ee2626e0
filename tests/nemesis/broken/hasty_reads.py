"""A node that answers linearizable reads from what it knows, and asks no quorum."""

from __future__ import annotations

from raftfs.consensus.barriers import Barriers
from raftfs_cli.main import main


def _tick(self: Barriers) -> None:
    callbacks, self._waiting = self._waiting, []
    for callback in callbacks:
        callback(self._engine.commit_index)


Barriers.tick = _tick  # type: ignore[method-assign]
main()
