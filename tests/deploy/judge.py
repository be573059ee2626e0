"""What the clients of a trial saw, judged: was a write lost, was a read not current, was an answer wrong."""

from __future__ import annotations

from collections.abc import Sequence

from raftfs.testing.linearizability import check, revision_faults
from raftfs.testing.nemesis.doors import Notes

_SHOWN_MAX = 5


def complaints(notes: Notes, operations_min: int) -> list[str]:
    """Empty if every promise was kept, and enough happened to say so. The history has to end with every file being
    read: that is what shows a write that was acknowledged and lost."""
    verdict = check(notes.history)
    found: list[str] = [*notes.wrong[:_SHOWN_MAX], *map(str, verdict.violations[:_SHOWN_MAX])]
    found += revision_faults(notes.history)[:_SHOWN_MAX]
    if verdict.undecided:
        found.append(f"{verdict.undecided} of {verdict.parts} parts of the history were too large to be judged")
    if notes.outcomes["ok"] < operations_min:
        found.append(f"only {notes.outcomes['ok']} operations were answered: that is too little to judge by")
    return found


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
