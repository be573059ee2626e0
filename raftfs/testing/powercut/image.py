"""What a disk holds, and what of it a power cut may leave: files, names, and the changes that nobody has synced yet.

A write is safe when its file is fsynced, a name when its directory is; nothing else is, also where some file systems
give more (ext4 syncs a new file's name with the file). When the power goes (:meth:`Image.survivors`), of everything
since then any part may have reached the disk:

* each sector of a file is as it was after some number of the writes that are pending, so an earlier write can be
  missing while a later one is there; what a file grew by may be there as zeros, or as garbage;
* a file's size and time of modification are those of some moment since they were synced;
* of the pending changes of names any beginning is there, or any subset. A rename is one change: its target is the old
  file or the new one. Between two directories it is durable in each when that one is synced, but it never loses
  the file: where the old name is durably gone, the new one is durable as well.

Everything is decided by a ``random.Random``. Not thread-safe.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = 1
SECTOR_BYTES: Final = (512, 4096)
"""What a torn write loses or keeps as one: a disk's sector, or a page of the kernel's cache."""

_GARBAGE: Final = 0.15
"""Share of torn files in which what was never written to the disk holds garbage instead of zeros."""


class Change(NamedTuple):
    """A pending write at ``offset`` (bytes), or a truncation (then ``new`` is empty)."""

    offset: int
    old: bytes
    new: bytes
    old_size: int
    new_size: int


@dataclass
class File:
    """``data`` is what programs see. ``synced_ns``: the time of modification that is durable."""

    data: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)
    mode: int = stat.S_IFREG | 0o600
    mtime_ns: int = 0
    synced_ns: int = 0

    def write(self, data: bytes, offset: int, now_ns: int) -> None:
        size, end = len(self.data), offset + len(data)
        self.pending.append(Change(offset, bytes(self.data[offset:end]), data, size, max(size, end)))
        if offset > size:
            self.data.extend(bytes(offset - size))
        self.data[offset:end] = data
        self.mtime_ns = now_ns

    def truncate(self, size: int, now_ns: int) -> None:
        old = len(self.data)
        if size == old:
            return
        self.pending.append(Change(size, bytes(self.data[size:]), b"", old, size))
        if size < old:
            del self.data[size:]
        else:
            self.data.extend(bytes(size - old))
        self.mtime_ns = now_ns

    def sync(self, *, data_only: bool) -> None:
        self.pending.clear()
        if not data_only:
            self.synced_ns = self.mtime_ns

    def durable(self) -> bytes:
        """What is certain to survive."""
        data = bytearray(self.data)
        for change in reversed(self.pending):
            if change.new_size < change.old_size:
                data.extend(change.old)
            else:
                data[change.offset : change.offset + len(change.old)] = change.old
                del data[change.old_size :]
        return bytes(data)

    def torn(self, dice: random.Random) -> bytes:
        """What a power cut leaves of it."""
        if not self.pending:
            return bytes(self.data)
        durable, count = self.durable(), len(self.pending)
        sector = dice.choice(SECTOR_BYTES)
        kept = _Kept(count, dice)
        size = self._torn_size(len(durable), kept, dice)
        largest = max(size, max(change.new_size for change in self.pending), len(durable))
        fill = dice.randbytes(largest - len(durable)) if dice.random() < _GARBAGE else bytes(largest - len(durable))
        torn = bytearray(durable + fill)
        for number, change in enumerate(self.pending):
            end = change.offset + len(change.new)
            if change.new_size < change.old_size:
                new, end = bytes(change.old_size - change.new_size), change.old_size
            else:
                new = change.new
            for start in range(change.offset - change.offset % sector, end, sector):
                if number < kept.of(start // sector):
                    low, high = max(start, change.offset), min(start + sector, end)
                    torn[low:high] = new[low - change.offset : high - change.offset]
        return bytes(torn[:size])

    def _torn_size(self, durable: int, kept: _Kept, dice: random.Random) -> int:
        number = kept.of(-1)
        size = self.pending[number - 1].new_size if number else durable
        following = self.pending[number].new_size if number < len(self.pending) else size
        return dice.randint(size, following) if following > size and dice.random() < 0.5 else size


class _Kept:
    """How many of ``count`` pending changes have reached each sector; drawn when first asked for."""

    def __init__(self, count: int, dice: random.Random) -> None:
        self._dice, self._count = dice, count
        self._manner = dice.choice(("none", "all", "beginning", "any", "mostly", "hardly"))
        self._beginning = dice.randint(0, count)
        self._of: dict[int, int] = {}

    def of(self, sector: int) -> int:
        if sector not in self._of:
            self._of[sector] = self._draw()
        return self._of[sector]

    def _draw(self) -> int:
        dice = self._dice
        match self._manner:
            case "none":
                return 0
            case "all":
                return self._count
            case "beginning":
                return self._beginning
            case "any":
                return dice.randint(0, self._count)
            case manner:
                return (
                    self._count
                    if dice.random() < (0.9 if manner == "mostly" else 0.1)
                    else dice.randint(0, self._count)
                )


@dataclass
class Directory:
    """``names`` is what programs see, ``synced`` what is durable: name to inode."""

    names: dict[str, int] = field(default_factory=dict)
    synced: dict[str, int] = field(default_factory=dict)
    mode: int = stat.S_IFDIR | 0o700
    mtime_ns: int = 0


class Name(NamedTuple):
    """A name and the inode that it stands for from now on; None: it is gone."""

    directory: int
    name: str
    inode: int | None


class Image:
    """A disk. Paths are absolute within it; errors are OSError with the ``errno`` that a file system would give."""

    def __init__(self) -> None:
        self.inodes: dict[int, File | Directory] = {ROOT: Directory()}
        self._numbers = itertools.count(ROOT + 1)
        self._pending: list[list[Name]] = []

    @classmethod
    def load(cls, tree: Path) -> Image:
        """A disk on which everything in the folder ``tree`` is durable."""
        image = cls()
        image._load(ROOT, tree)
        return image

    def _load(self, inode: int, tree: Path) -> None:
        directory = self.inodes[inode]
        assert isinstance(directory, Directory)
        for entry in os.scandir(tree):
            number, status = next(self._numbers), entry.stat()
            if entry.is_dir():
                self.inodes[number] = Directory(mode=status.st_mode, mtime_ns=status.st_mtime_ns)
                self._load(number, Path(entry.path))
            else:
                data = bytearray(Path(entry.path).read_bytes())
                time_ns = status.st_mtime_ns
                self.inodes[number] = File(data, mode=status.st_mode, mtime_ns=time_ns, synced_ns=time_ns)
            directory.names[entry.name] = directory.synced[entry.name] = number

    # --- looking -------------------------------------------------------------------------------------------------

    def find(self, path: str) -> int:
        """The inode of a path. Raises ENOENT, ENOTDIR."""
        number = ROOT
        for name in path.split("/"):
            if name:
                found = self.directory(number).names.get(name)
                if found is None:
                    raise OSError(errno.ENOENT, path)
                number = found
        return number

    def file(self, inode: int) -> File:
        found = self.inodes[inode]
        if not isinstance(found, File):
            raise OSError(errno.EISDIR, str(inode))
        return found

    def directory(self, inode: int) -> Directory:
        found = self.inodes[inode]
        if not isinstance(found, Directory):
            raise OSError(errno.ENOTDIR, str(inode))
        return found

    def used_bytes(self) -> int:
        return sum(len(node.data) for node in self.inodes.values() if isinstance(node, File))

    def collect(self, opened: Iterable[int]) -> None:
        """Forget inodes that no name stands for, now or after any power cut, and that are not open."""
        used = {ROOT, *opened}
        for one in itertools.chain.from_iterable(self._pending):
            used |= {one.directory} if one.inode is None else {one.directory, one.inode}
        for node in self.inodes.values():
            if isinstance(node, Directory):
                used.update(node.names.values(), node.synced.values())
        for inode in [number for number in self.inodes if number not in used]:
            del self.inodes[inode]

    # --- changing names ------------------------------------------------------------------------------------------

    def create(self, path: str, mode: int, now_ns: int) -> int:
        return self._add(path, File(mode=stat.S_IFREG | mode, mtime_ns=now_ns, synced_ns=now_ns))

    def make_directory(self, path: str, mode: int, now_ns: int) -> int:
        return self._add(path, Directory(mode=stat.S_IFDIR | mode, mtime_ns=now_ns))

    def _add(self, path: str, node: File | Directory) -> int:
        parent, name = self._parent(path)
        if name in self.directory(parent).names:
            raise OSError(errno.EEXIST, path)
        number = next(self._numbers)
        self.inodes[number] = node
        self._change([Name(parent, name, number)])
        return number

    def remove(self, path: str) -> None:
        """Remove a file, or an empty directory. Its inode stays as long as something may refer to it."""
        parent, name = self._parent(path)
        node = self.inodes[self.find(path)]
        if isinstance(node, Directory) and node.names:
            raise OSError(errno.ENOTEMPTY, path)
        self._change([Name(parent, name, None)])

    def rename(self, source: str, target: str) -> None:
        number = self.find(source)
        (from_parent, from_name), (to_parent, to_name) = self._parent(source), self._parent(target)
        replaced = self.directory(to_parent).names.get(to_name)
        if replaced == number:
            return
        if replaced is not None:
            self._check_replaceable(self.inodes[number], self.inodes[replaced], target)
        self._change([Name(to_parent, to_name, number), Name(from_parent, from_name, None)])

    def _check_replaceable(self, node: File | Directory, replaced: File | Directory, path: str) -> None:
        if isinstance(replaced, File):
            if isinstance(node, Directory):
                raise OSError(errno.ENOTDIR, path)
        elif isinstance(node, File):
            raise OSError(errno.EISDIR, path)
        elif replaced.names:
            raise OSError(errno.ENOTEMPTY, path)

    def _parent(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        parent = self.find(folder)
        self.directory(parent)
        return parent, name

    def _change(self, change: list[Name]) -> None:
        for one in change:
            _set(self.directory(one.directory).names, one)
        self._pending.append(change)

    # --- durability ----------------------------------------------------------------------------------------------

    def sync_directory(self, inode: int) -> None:
        """Make the names in a directory durable, and nothing else, except that a rename out of it is not torn apart."""
        self.directory(inode)
        remaining: list[list[Name]] = []
        for change in self._pending:
            whole = any(one.directory == inode and one.inode is None for one in change)
            for one in change:
                if whole or one.directory == inode:
                    _set(self.directory(one.directory).synced, one)
                    if one.directory != inode:
                        # What waited for the same name is older than what is durable there now.
                        key = (one.directory, one.name)
                        remaining = [[old for old in kept if (old.directory, old.name) != key] for kept in remaining]
            if not whole and (rest := [one for one in change if one.directory != inode]):
                remaining.append(rest)
        self._pending = [change for change in remaining if change]

    def pending_names(self) -> list[list[Name]]:
        return [list(change) for change in self._pending]

    def survivors(self, dice: random.Random) -> Iterator[tuple[str, File | None]]:
        """What is left by a power cut: each path (relative, parents first) with its file; None for a directory."""
        names = {number: dict(node.synced) for number, node in self.inodes.items() if isinstance(node, Directory)}
        for change in self._surviving_changes(dice):
            for one in change:
                _set(names[one.directory], one)
        yield from self._walk(names, ROOT, "", dice)

    def _surviving_changes(self, dice: random.Random) -> list[list[Name]]:
        manner, pending = dice.choice(("none", "all", "beginning", "beginning", "any")), self._pending
        match manner:
            case "none":
                return []
            case "all":
                return pending
            case "beginning":
                return pending[: dice.randint(0, len(pending))]
        chance = dice.choice((0.1, 0.5, 0.9))
        return [change for change in pending if dice.random() < chance]

    def _walk(
        self, names: dict[int, dict[str, int]], inode: int, at: str, dice: random.Random
    ) -> Iterator[tuple[str, File | None]]:
        for name, number in sorted(names[inode].items()):
            node, path = self.inodes[number], f"{at}/{name}" if at else name
            if isinstance(node, Directory):
                yield path, None
                yield from self._walk(names, number, path, dice)
            else:
                time_ns = dice.choice((node.synced_ns, node.mtime_ns))
                yield path, File(bytearray(node.torn(dice)), mode=node.mode, mtime_ns=time_ns, synced_ns=time_ns)

    def lose_power(self, dice: random.Random, tree: Path) -> dict[str, int]:
        """Write what survives into the new folder ``tree``. Returns counts: files and names whose fate was open."""
        dirty = sum(1 for node in self.inodes.values() if isinstance(node, File) and node.pending)
        open_names = len(self._pending)
        tree.mkdir()
        for path, file in self.survivors(dice):
            if file is None:
                (tree / path).mkdir()
            else:
                (tree / path).write_bytes(file.data)
                os.utime(tree / path, ns=(file.mtime_ns, file.mtime_ns))
        return {"unsynced_files": dirty, "unsynced_names": open_names}


def _set(names: dict[str, int], change: Name) -> None:
    if change.inode is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.inode
