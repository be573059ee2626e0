"""The numbers by which nodes with different code know what they may do together; ``docs/design/versions.md`` explains.

A release raises each of them by one at most, and understands the one before, so that a cluster can be upgraded one
member after the other.
"""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 1
"""Newest format of the replicated data (commands, results, tables) that this code understands and can switch to."""

FORMAT_VERSION_MIN: Final = max(1, FORMAT_VERSION - 1)
"""Oldest one that it understands."""

UNDECIDED: Final = 0
"""The format of a database in whose log nobody has chosen one yet: that of a new cluster, and of a new member."""

PROTOCOL_VERSION: Final = 1
"""Newest form of the messages between members that this code speaks."""

PROTOCOL_VERSION_MIN: Final = max(1, PROTOCOL_VERSION - 1)
"""Oldest one that it speaks."""
