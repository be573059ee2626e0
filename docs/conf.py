"""How Sphinx builds the documentation: `make docs`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from raftfs import __version__  # noqa: E402

project = "raftfs"
author = "the raftfs authors"
project_copyright = "the raftfs authors, Apache License 2.0"
version = release = __version__

extensions = ["myst_parser", "limits_table"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]
exclude_patterns = ["_build", "_ext"]
nitpicky = True

html_theme = "furo"
html_title = f"raftfs {release}"
html_show_sphinx = False
pygments_style = "default"
highlight_options = {"console": {"stripnl": False}}
