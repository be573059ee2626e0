"""What msgspec raises for bytes that are not what they should be. Its documentation names the first of them alone."""

from __future__ import annotations

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Wrong shape; a string that is no UTF-8; nested too deeply."""
