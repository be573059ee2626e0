"""What of a disk's files and names is durable, and what a loss of power leaves of them.

A file's bytes are durable as they were at its last sync, a name when the directory that holds it was synced. When the
power goes, each name that changed since then is as it was or as it is, each by itself, but for a rename, which is
one change. Where the old name is durably gone, the new one is durable as well. A file or directory keeps its identity
(``Id``) while it moves; a link to each that was ever synced lies in the ``attic``, so that it can come back.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

Id = tuple[int, int]
"""life of the disk, inode"""

ForgetsNames = Callable[[Path], bool]
"""path in the data directory → whether a sync of the directory that it lies in leaves out this name"""

Tear = Callable[[bytes, bytes], bytes]
"""(durable, written) → what is there after a loss of power"""


class Names:
    """Of the files under ``root``, which is a new folder in each life of the machine. ``unseen``: says of a name
    whether SQLite writes that file, whose syncs are not seen from here: it comes and goes, and is never torn here."""

    def __init__(self, root: Path, attic: Path, unseen: Callable[[str], bool]) -> None:
        self._root, self._attic, self._unseen = root, attic, unseen
        attic.mkdir()
        self._life = 0
        self._bytes: dict[Id, bytes] = {}
        self._synced: dict[Id, dict[str, Id]] = {}

    def _id(self, path: Path) -> Id:
        return self._life, path.lstat().st_ino

    def _link(self, known: Id) -> Path:
        return self._attic / f"{known[0]}-{known[1]}"

    def _present(self, directory: Path) -> dict[str, Id]:
        with os.scandir(directory) as entries:
            return {entry.name: (self._life, entry.inode()) for entry in entries}

    def _directories(self) -> Iterator[Path]:
        yield self._root
        yield from (path for path in sorted(self._root.iterdir()) if path.is_dir())

    # --- syncs ---------------------------------------------------------------------------------------------------

    def sync_data(self, path: Path) -> None:
        self._bytes[self._keep(path)] = path.read_bytes()

    def _keep(self, path: Path) -> Id:
        found = self._id(path)
        if not (link := self._link(found)).exists():
            os.link(path, link)
        return found

    def sync_directory(self, path: Path, forgets: ForgetsNames) -> None:
        own, place = self._id(path), path.relative_to(self._root)
        before, present = self._synced.get(own, {}), self._present(path)
        now = {name: found for name, found in present.items() if not forgets(place / name)}
        now |= {name: found for name, found in before.items() if forgets(place / name)}
        self._synced[own] = now
        for name, found in now.items():
            if before.get(name) == found:
                continue
            if (path / name).is_dir():
                self._synced.setdefault(found, {})
            else:
                self._keep(path / name)
        if gone := set(before.values()) - set(now.values()):
            self._sync_new_names(gone)

    def _sync_new_names(self, gone: set[Id]) -> None:
        """Who was renamed is durable under the new name before it is gone under the old one."""
        for directory in self._directories():
            for name, found in self._present(directory).items():
                if found in gone:
                    self._synced.setdefault(self._id(directory), {})[name] = found

    # --- between two lives ---------------------------------------------------------------------------------------

    def move(self, root: Path, life: int) -> None:
        """``root`` has become a copy of what was there: it is the place of the next life."""
        new: dict[Id, Id] = {self._id(self._root): (life, root.lstat().st_ino)}
        for directory in self._directories():
            for name, found in self._present(directory).items():
                copy = root / directory.relative_to(self._root) / name
                if copy.exists():
                    new[found] = life, copy.lstat().st_ino
        self._root, self._life = root, life
        self._bytes = {new.get(known, known): content for known, content in self._bytes.items()}
        self._synced = {
            new.get(directory, directory): {name: new.get(known, known) for name, known in names.items()}
            for directory, names in self._synced.items()
        }
        wanted = {known for names in self._synced.values() for known in names.values()}
        for link in list(self._attic.iterdir()):
            number, _, inode = link.name.partition("-")
            known = int(number), int(inode)
            if known in new or known not in wanted:
                link.unlink()
        for directory in self._directories():
            for name in self._present(directory):
                if self._unseen(name):
                    self._keep(directory / name)

    def wipe(self, root: Path, life: int) -> None:
        """An empty disk."""
        self._root, self._life = root, life
        self._bytes, self._synced = {}, {}
        for link in list(self._attic.iterdir()):
            link.unlink()

    def lose_power(self, rng: random.Random, tear: Tear) -> None:
        """Make the files what they are after it. What is there then is durable."""
        places = {
            found: folder / name for folder in self._directories() for name, found in self._present(folder).items()
        }
        renamed = {
            known: places[known].read_bytes()
            for names in self._synced.values()
            for name, known in names.items()
            if known in places and places[known].name != name and places[known].is_file()
        }
        self._bytes |= renamed
        self._lose(self._root, rng, tear, {})
        self._bytes, self._synced = {}, {}
        for directory in self._directories():
            self._synced[self._id(directory)] = self._present(directory)
            for path in directory.iterdir():
                if path.is_file():
                    known = self._keep(path)
                    if not self._unseen(path.name):
                        self._bytes[known] = path.read_bytes()

    def _lose(self, directory: Path, rng: random.Random, tear: Tear, undone: dict[Id, bool]) -> None:
        """``undone``: what came or went → whether it did not, decided once for both names of what was renamed."""
        synced, present = self._synced.get(self._id(directory), {}), self._present(directory)
        for name in sorted(synced.keys() | present.keys()):
            path, old, new = directory / name, synced.get(name), present.get(name)
            changed = new or old
            assert changed is not None
            if old != new and undone.setdefault(changed, rng.random() < 0.5):
                self._put_back(path, old)
            elif path.is_dir():
                self._lose(path, rng, tear, undone)
            elif new is not None and not self._unseen(name):
                path.write_bytes(tear(self._bytes.get(new, b""), path.read_bytes()))

    def _put_back(self, path: Path, old: Id | None) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if old is None:
            return
        if old in self._synced:
            path.mkdir()
            for name, known in self._synced[old].items():
                self._put_back(path / name, known)
            return
        link = self._link(old)
        path.write_bytes(link.read_bytes() if self._unseen(path.name) and link.exists() else self._bytes.get(old, b""))
