"""The directive ``limits-table``: every constant of raftfs/limits.py, under the comment that heads its group."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from raftfs import limits

SCALES = ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


class LimitsTable(Directive):
    """A definition list per group would hide the numbers, so each group is a table of name, value and remark."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for title, rows in groups(inspect.getsource(limits)):
            made += [nodes.paragraph("", "", nodes.strong("", title)), _table(rows)]
        return made


def groups(source: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """(group, [(name, value with unit, remark)]) in the order of the file."""
    lines = source.splitlines()
    found: list[tuple[str, list[tuple[str, str, str]]]] = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        heading = lines[node.lineno - 2].strip()
        if heading.startswith("#") or not found:
            found.append((heading.lstrip("# ").rstrip("."), []))
        name = node.target.id
        _, _, remark = lines[(node.end_lineno or node.lineno) - 1].partition("#")
        found[-1][1].append((name, readable(name, getattr(limits, name)), remark.strip()))
    return found


def readable(name: str, value: Any) -> str:
    """A limit's value with the unit that its name says: 4194304 of CHUNK_BYTES is 4 MiB."""
    words = name.split("_")
    if isinstance(value, int | float) and "BYTES" in words:
        for scale, unit in SCALES:
            if value >= scale and value % scale == 0:
                return f"{value // scale:,} {unit}"
        return f"{value:,} bytes"
    if isinstance(value, int | float) and ("S" in words or "MS" in words):
        return _readable_time(value / 1000 if "MS" in words else float(value))
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _readable_time(seconds: float) -> str:
    for scale, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= scale and seconds % scale == 0:
            return f"{seconds / scale:,.0f} {unit}"
    return f"{seconds:g} s"


def _table(rows: list[tuple[str, str, str]]) -> nodes.table:
    widths = (45, 15, 40)
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
    group += nodes.thead("", _row([nodes.Text(text) for text in ("limit", "value", "remark")]))
    body = nodes.tbody()
    for name, value, remark in rows:
        body += _row([nodes.literal("", name), nodes.Text(value), nodes.Text(remark)])
    group += body
    return nodes.table("", group)


def _row(cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("limits-table", LimitsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
