"""Files as the checker thinks of them: which path holds which value, and what each call does to that.

A state is a frozenset of (path, value); a path that is not in it holds nothing. Directories are taken as given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from raftfs.testing import history as h

State = frozenset[tuple[str, str]]

EMPTY: State = frozenset()
_UNSEEN = "(unseen)"


def step(state: State, call: h.Call) -> tuple[State, str]:
    """The state after a call, and what its caller is told (one of the results in ``history``)."""
    match call:
        case h.Read(path):
            return state, _at(state, path) or h.MISSING
        case h.Names(path):
            return state, h.listing(item for item in state if parent(item[0]) == path)
        case h.Write(path, value):
            before = _at(state, path)
            return _put(state, path, before, value), h.CREATED if before is None else h.REPLACED
        case h.Create(path, value):
            before = _at(state, path)
            return (_put(state, path, None, value), h.CREATED) if before is None else (state, h.EXISTS)
        case h.Swap(path, expected, value):
            before = _at(state, path)
            return (_put(state, path, before, value), h.REPLACED) if before == expected else (state, h.MISMATCH)
        case h.Delete(path):
            before = _at(state, path)
            return (state, h.MISSING) if before is None else (state - {(path, before)}, h.DELETED)
        case h.Rename():
            return _rename(state, call)
        case h.Transaction():
            return _transaction(state, call)


def _at(state: State, path: str) -> str | None:
    for item in state:
        if item[0] == path:
            return item[1]
    return None


def _put(state: State, path: str, before: str | None, value: str) -> State:
    return (state if before is None else state - {(path, before)}) | {(path, value)}


def _rename(state: State, call: h.Rename) -> tuple[State, str]:
    moved, replaced = _at(state, call.source), _at(state, call.target)
    if moved is None:
        return state, h.MISSING
    if call.source == call.target:
        return state, h.MOVED
    if replaced is not None and not call.replace:
        return state, h.EXISTS
    return _put(state, call.target, replaced, moved) - {(call.source, moved)}, h.MOVED


def _transaction(state: State, call: h.Transaction) -> tuple[State, str]:
    after = state
    if any(_at(state, path) != value for path, value in call.when):
        return state, h.MISMATCH
    for change in call.then:
        after, told = step(after, change)
        if told.startswith("-"):
            return state, h.MISMATCH
    return after, h.DONE


def parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def without_unseen_values(history: Sequence[h.Operation]) -> list[h.Operation]:
    """The history with one value for all those of unknown writes that no answer shows and no call names again."""
    seen = {word.rpartition("=")[2] for one in history if one.result is not None for word in one.result.split(" ")}
    for one in history:
        seen.update(_asked_for(one.call))
    return [
        msgspec.structs.replace(one, call=msgspec.structs.replace(one.call, value=_UNSEEN))
        if isinstance(one.call, h.Write | h.Create | h.Swap) and not one.known and one.call.value not in seen
        else one
        for one in history
    ]


def _asked_for(call: h.Call) -> Iterable[str]:
    """The values that a call names as what it expects to be there."""
    match call:
        case h.Swap(_, expected):
            yield expected
        case h.Transaction(when, then):
            yield from (value for _, value in when if value is not None)
            for change in then:
                yield from _asked_for(change)


def partitions(history: Sequence[h.Operation]) -> list[list[h.Operation]]:
    """The history in parts that share no path: each can be judged alone, and the whole is right if each part is.

    A rename joins its two paths, a transaction all of its, a list every path right below its directory.
    """
    groups = _Groups()
    listed = {one.call.path for one in history if isinstance(one.call, h.Names)}
    for one in history:
        touched = list(_touched(one.call))
        for path in touched:
            groups.join(touched[0], path)
            if parent(path[1]) in listed and path[0] == "file":
                groups.join(path, ("list", parent(path[1])))
    parts: dict[tuple[str, str], list[h.Operation]] = {}
    for one in history:
        first = next(iter(_touched(one.call)), ("nothing", ""))
        parts.setdefault(groups.root(first), []).append(one)
    return list(parts.values())


def _touched(call: h.Call) -> Iterable[tuple[str, str]]:
    match call:
        case h.Names(path):
            yield ("list", path)
        case h.Rename(source, target):
            yield from (("file", source), ("file", target))
        case h.Transaction(when, then):
            yield from (("file", path) for path, _ in when)
            for change in then:
                yield from _touched(change)
        case h.Read(path) | h.Write(path) | h.Create(path) | h.Swap(path) | h.Delete(path):
            yield ("file", path)


class _Groups:
    """Sets that only ever join (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(self, item: tuple[str, str]) -> tuple[str, str]:
        above = self._parents.setdefault(item, item)
        while above != item:
            self._parents[item] = self._parents[above]
            item, above = above, self._parents[above]
        return item

    def join(self, a: tuple[str, str], b: tuple[str, str]) -> None:
        self._parents[self.root(a)] = self.root(b)
