"""While a copy of the state is in use, the log keeps what comes after it, and writes cost what they cost otherwise."""

from __future__ import annotations

from pathlib import Path

from raftfs.consensus.parts import LogSizes

from .members import Members, members

SHORT = LogSizes(segment_bytes=512, segments_kept=2)


async def write(group: Members, count: int) -> None:
    for number in range(count):
        await group.propose(f"write {number}".ljust(100).encode())


async def test_a_log_that_is_held_is_not_made_durable_again_and_again(tmp_path: Path) -> None:
    """Each of these syncs the whole state database; one after each entry, writes took a second."""
    async with members(tmp_path, "a", SHORT) as group:
        node, state = group.nodes["a"], group.states["a"]
        await write(group, 30)
        await group.until(lambda: state.checkpoints)
        held = node.status().applied_index
        node.hold_log(held)
        await write(group, 10)
        before = state.checkpoints
        await write(group, 50)
        assert state.checkpoints == before
        node.hold_log(None)
        await write(group, 10)
        await group.until(lambda: state.checkpoints > before)
        assert state.checkpoints - before < 10
