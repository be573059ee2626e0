"""Where ``put``, ``get``, ``mv`` and ``cp`` put things: the rules of cp, worked out before anything is sent.

The target is a directory to put things *into* if it ends with a slash, if there are several sources, or if it is
one already. Otherwise the one source gets the target's own name. Missing directories above the target are made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from raftfs import paths
from raftfs.errors import InvalidRequest, IsADirectory

STDIO = "-"


@dataclass(frozen=True)
class Upload:
    """One source of ``put``: a local path or ``-``, and the normal path where it goes."""

    source: str
    target: str
    directory: bool


def split(arguments: list[str], default_target: str) -> tuple[list[str], str]:
    """Sources and target of a command line; with one argument, the target is ``default_target``."""
    return (arguments[:-1], arguments[-1]) if len(arguments) > 1 else (arguments, default_target)


def is_into(sources: list[str], target: str) -> bool:
    """Whether the words alone say that the target is a directory to put things into."""
    return len(sources) > 1 or target.endswith("/") or target == ""


def plan_uploads(sources: list[str], target: str, *, into: bool, recursive: bool) -> list[Upload]:
    """Check all sources and say where each goes. Raises OSError, IsADirectory (without ``recursive``), InvalidPath,
    InvalidRequest."""
    uploads = [_plan_upload(source, paths.normalize(target), into, recursive) for source in sources]
    refuse_twice([upload.target for upload in uploads])
    return uploads


def refuse_twice(goals: Iterable[object]) -> None:
    """As cp and mv do: what one source has just become must not be replaced by the next. Raises InvalidRequest."""
    seen = set()
    for goal in goals:
        if goal in seen:
            raise InvalidRequest(f"two sources would become {goal}, and only the last would be left")
        seen.add(goal)


def _plan_upload(source: str, target: str, into: bool, recursive: bool) -> Upload:
    if source == STDIO:
        if into:
            raise InvalidRequest("standard input has no name: give the whole path where it goes")
        return Upload(source, target, directory=False)
    mode = os.stat(source).st_mode
    directory = stat.S_ISDIR(mode)
    if directory and not recursive:
        raise IsADirectory(f"{source} is a directory")
    # "dir/." and ".." name what is in a directory, not the directory.
    name = os.path.basename(source.rstrip("/"))
    if into and name not in ("", ".", ".."):
        target = paths.normalize(paths.join(target, name))
    return Upload(source, target, directory)


def remote_target(source: str, target: str, *, into: bool) -> str:
    """Where ``mv`` and ``cp`` put a path of the store."""
    name = paths.split(paths.normalize(source))[1]
    if not name:
        raise InvalidRequest("the root cannot be moved or copied: name what is in it")
    return paths.join(paths.normalize(target), name) if into else paths.normalize(target)


def local_target(source: str, target: str, *, into: bool) -> Path:
    """Where ``get`` puts a path of the store; what is in the root goes directly into the target."""
    name = paths.split(paths.normalize(source))[1]
    return Path(target, name) if into and name else Path(target)
