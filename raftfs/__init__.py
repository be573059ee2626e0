"""raftfs: a consistent file store on three or five servers, replicated with Raft.

Three or five servers keep one tree of files and all agree on it. What comes in are files and changes to the tree, from
Python, the shell or HTTP; what goes out is what was last acknowledged, unless the reader asks for less. An
acknowledged write is on stable storage of a majority, and nothing half-written is ever seen.
"""

from __future__ import annotations

__version__ = "0.1.0"
