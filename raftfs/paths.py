"""Paths of the namespace: what is allowed, and the one normal form.

A path comes in as text and leaves as ``/a/b`` (absolute, no trailing slash; the root is ``/``). Nothing that a
client sends is ever joined to a path of the machine.
"""

from __future__ import annotations

from raftfs.errors import InvalidPath
from raftfs.limits import COMPONENT_BYTES_MAX, PATH_BYTES_MAX

ROOT = "/"


def normalize(path: str) -> str:
    """Check a path and return its normal form.

    A missing leading slash is added and one trailing slash dropped. Raises InvalidPath, saying which component is
    wrong and why: empty components, ``.``, ``..``, NUL, text that is not UTF-8, or a length over the limits.
    """
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidPath(f"path {path!r} is not valid UTF-8: {error.reason}") from None
    if size > PATH_BYTES_MAX:
        raise InvalidPath(f"path is {size} bytes long, at most {PATH_BYTES_MAX} are allowed")
    if path in ("", ROOT):
        return ROOT
    trimmed = path[1:] if path.startswith("/") else path
    trimmed = trimmed[:-1] if trimmed.endswith("/") else trimmed
    for component in trimmed.split("/"):
        _check_component(component, path)
    normal = "/" + trimmed
    if len(normal.encode("utf-8")) > PATH_BYTES_MAX:
        raise InvalidPath(f"path is over {PATH_BYTES_MAX} bytes long")
    return normal


def _check_component(component: str, path: str) -> None:
    if component == "":
        raise InvalidPath(f"path {path!r} has an empty component (two slashes in a row)")
    if component in (".", ".."):
        raise InvalidPath(f"path {path!r} has the component {component!r}; use the full path instead")
    if "\0" in component:
        raise InvalidPath(f"path {path!r} contains a NUL character")
    size = len(component.encode("utf-8"))
    if size > COMPONENT_BYTES_MAX:
        raise InvalidPath(f"a component of the path is {size} bytes long, at most {COMPONENT_BYTES_MAX} are allowed")


def split(path: str) -> tuple[str, str]:
    """Parent and name of a normal path: ``/a/b`` gives ``("/a", "b")``, ``/a`` gives ``("/", "a")``."""
    parent, _, name = path.rpartition("/")
    return parent or ROOT, name


def components(path: str) -> list[str]:
    """Components of a normal path; the root has none."""
    return [] if path == ROOT else path[1:].split("/")


def join(parent: str, name: str) -> str:
    """Path of ``name`` inside the normal path ``parent``."""
    return f"/{name}" if parent == ROOT else f"{parent}/{name}"


def is_inside(path: str, ancestor: str) -> bool:
    """Whether ``path`` is ``ancestor`` or lies below it (both normal)."""
    return path == ancestor or ancestor == ROOT or path.startswith(ancestor + "/")
