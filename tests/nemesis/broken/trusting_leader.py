"""A node that, as leader, takes for granted that it still leads: its reads need no majority's word."""

from __future__ import annotations

from raftfs.consensus.barriers import Barriers
from raftfs_cli.main import main

_begin_round = Barriers._begin_round


def _begin_sure_round(self: Barriers) -> None:
    peers, self._peers = self._peers, frozenset()  # with nobody to ask, its own word is a majority
    try:
        _begin_round(self)
    finally:
        self._peers = peers


Barriers._begin_round = _begin_sure_round  # type: ignore[method-assign]
main()
