"""raftfs: a consistent file store on three or five servers, replicated with Raft."""

from __future__ import annotations

__version__ = "0.1.0"
