"""A node that, as leader, takes for granted that it still leads: its reads need no majority's word."""

from __future__ import annotations

from raftfs.consensus.barriers import Barriers, _answer
from raftfs_cli.main import main


def _begin_sure_round(self: Barriers) -> None:
    callbacks, self._waiting = self._waiting, []
    _answer(callbacks, self._engine.commit_index)


Barriers._begin_round = _begin_sure_round  # type: ignore[method-assign]
main()
