"""A node that does not remember idempotency keys: what is asked for twice is done twice."""

from __future__ import annotations

from raftfs.state.commands import Code
from raftfs.state.sessions import Sessions
from raftfs_cli.main import main


def _remember(self: Sessions, key: str, fingerprint: bytes, code: Code, encoded: bytes) -> None:
    pass


Sessions.remember = _remember  # type: ignore[method-assign]
main()
