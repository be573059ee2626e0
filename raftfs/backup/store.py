"""A directory of backups: their manifests, and the objects that all of them share, each named by its digest.

What has its name is whole: bytes are written and synced under another name first. A manifest gets its name last, so an
interrupted backup is none, and leaves objects that the next one finds.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import msgspec

from raftfs import fsync, limits
from raftfs.backup.manifest import FORMAT, Info, quick_info
from raftfs.errors import Conflict, CorruptData, DataTooNew, InvalidRequest, NotFound, StorageFull

MARKER: Final = "raftfs-backups.json"
OBJECTS: Final = "objects"
BACKUPS: Final = "backups"
UNFINISHED: Final = "unfinished"
SUFFIX: Final = ".jsonl"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of the marker: what this directory is, and whose backups are in it."""

    raftfs_backups: int
    cluster_id: str

    def encode(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"


class Source(Protocol):
    """Where backups are read from: a directory, or a tar file."""

    mark: Mark

    def names(self) -> list[str]:
        """Names of the finished backups, oldest first."""

    def open_manifest(self, name: str) -> BinaryIO:
        """Raises NotFound, OSError."""

    def objects(self) -> Iterator[str]:
        """Digests that objects are named by, in the order in which they are read best."""

    def read_object(self, digest: str) -> bytes:
        """The bytes that are there, unchecked. Raises NotFound, CorruptData (longer than an object can be), OSError."""

    def strange(self) -> Iterator[str]:
        """What does not belong here."""

    def notes(self) -> Iterator[str]:
        """What is worth knowing, and no damage."""

    def close(self) -> None: ...


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writes to where backups go. Raises StorageFull for a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                f"no space left for {path}: make room and run it again, it goes on with what is there"
            ) from error
        raise


def object_name(digest: str) -> str:
    return f"{OBJECTS}/{digest[:2]}/{digest}"


def parse_mark(data: bytes, where: str) -> Mark:
    """Raises CorruptData, DataTooNew."""
    try:
        mark = msgspec.json.decode(data, type=Mark)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(f"{where} is damaged: {error}") from None
    if mark.raftfs_backups > FORMAT:
        raise DataTooNew(f"{where} has format {mark.raftfs_backups}, this raftfs understands up to {FORMAT}")
    if mark.raftfs_backups < 1 or mark.encode() != data:
        raise CorruptData(f"{where} is damaged")
    return mark


class BackupDirectory:
    """An existing directory of backups, locked as long as this is open: ``exclusive``, by one process, to change it."""

    def __init__(self, path: Path, *, exclusive: bool) -> None:
        """Raises NotFound, InvalidRequest (a directory of something else), Conflict (in use), CorruptData."""
        self.path = path
        marker = path / MARKER
        if not path.exists():
            raise NotFound(f"there is no {path}")
        if not marker.exists():
            raise InvalidRequest(f"{path} has no backups of raftfs in it: there is no {MARKER}")
        self._lock = os.open(marker, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            self.mark = parse_mark(marker.read_bytes(), str(marker))
        except OSError as error:
            os.close(self._lock)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise Conflict(f"{path} is in use by another backup, restore, check or removal") from None
            raise
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def prepare(cls, path: Path, cluster_id: str) -> BackupDirectory:
        """For writing; made if it is not there yet. Raises InvalidRequest if something else is in it, Conflict if it
        has backups of another cluster, StorageFull."""
        marker = path / MARKER
        with writing(path):
            fsync.make_directory(path)
            if not marker.exists():
                # A first attempt that was interrupted leaves the marker under its temporary name.
                if any(name != f"{MARKER}.new" for name in os.listdir(path)):
                    raise InvalidRequest(
                        f"{path} is not empty and has no backups of raftfs in it: choose another place"
                    )
                fsync.write_durably(marker, Mark(FORMAT, cluster_id).encode())
            found = cls(path, exclusive=True)
            if found.mark.cluster_id != cluster_id:
                found.close()
                raise Conflict(
                    f"{path} has backups of cluster {found.mark.cluster_id}, not of {cluster_id}: choose another place"
                )
            for folder in (OBJECTS, BACKUPS, UNFINISHED):
                fsync.make_directory(path / folder)
        return found

    def close(self) -> None:
        os.close(self._lock)

    # Reading

    def names(self) -> list[str]:
        with suppress(FileNotFoundError):
            found = os.listdir(self.path / BACKUPS)
            return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))
        return []

    def open_manifest(self, name: str) -> BinaryIO:
        path = self.path / BACKUPS / (name + SUFFIX)
        if "/" in name or not path.exists():
            raise NotFound(f"there is no backup {name} in {self.path}")
        return path.open("rb")

    def infos(self) -> list[Info]:
        """Of all backups, oldest first. Raises CorruptData."""
        found = []
        for name in self.names():
            with self.open_manifest(name) as file:
                found.append(quick_info(file, name))
        return found

    def objects(self) -> Iterator[str]:
        for folder in self._folders():
            for name in sorted(os.listdir(folder)):
                if _is_object(folder, name):
                    yield name

    def read_object(self, digest: str) -> bytes:
        path = self.path / object_name(digest)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > limits.BACKUP_OBJECT_BYTES_MAX:
                    raise CorruptData(f"{path} is longer than an object can be")
                return file.read()
        except FileNotFoundError:
            raise NotFound(f"{path} is missing") from None

    def has_object(self, digest: str, length: int | None = None) -> bool:
        """Whether it is there, with that length. Its bytes are not looked at: that is what verifying is for."""
        with suppress(OSError):
            found = (self.path / object_name(digest)).stat()
            return length is None or found.st_size == length
        return False

    def strange(self) -> Iterator[str]:
        known = {MARKER, OBJECTS, BACKUPS, UNFINISHED}
        yield from (name for name in sorted(os.listdir(self.path)) if name not in known)
        with suppress(FileNotFoundError):
            yield from (f"{BACKUPS}/{n}" for n in sorted(os.listdir(self.path / BACKUPS)) if not n.endswith(SUFFIX))
        with suppress(FileNotFoundError):
            yield from (f"{OBJECTS}/{n}" for n in sorted(os.listdir(self.path / OBJECTS)) if not _is_folder(n))
        for folder in self._folders():
            yield from (
                f"{OBJECTS}/{folder.name}/{name}" for name in sorted(os.listdir(folder)) if not _is_object(folder, name)
            )

    def notes(self) -> Iterator[str]:
        if self.has_unfinished():
            yield "a backup was begun and not finished: the next one goes on with what it has"

    def _folders(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return [folder for folder in sorted((self.path / OBJECTS).iterdir()) if _is_folder(folder.name)]
        return []

    # Writing

    def put_object(self, digest: str, data: bytes) -> None:
        """Durable but for its name, which ``finish`` sees to. Raises StorageFull, OSError."""
        target = self.path / object_name(digest)
        temporary = self.path / UNFINISHED / f"{digest}.part"
        with writing(self.path):
            target.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                try:
                    fsync.write_all(fd, data)
                    fsync.sync_data(fd, temporary)
                finally:
                    os.close(fd)
                os.replace(temporary, target)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    @property
    def unfinished(self) -> Path:
        """The manifest of a backup that is being made, or was interrupted."""
        return self.path / UNFINISHED / f"manifest{SUFFIX}"

    def has_unfinished(self) -> bool:
        with suppress(FileNotFoundError):
            return bool(os.listdir(self.path / UNFINISHED))
        return False

    def finish(self, manifest: BinaryIO, name: str) -> None:
        """Make everything durable, and then a backup of it. ``manifest``: the open file at ``unfinished``."""
        with writing(self.path):
            manifest.flush()
            fsync.sync_data(manifest.fileno(), self.unfinished)
            for folder in self._folders():
                fsync.sync_directory(folder)
            fsync.sync_directory(self.path / OBJECTS)
            os.replace(self.unfinished, self.path / BACKUPS / (name + SUFFIX))
            fsync.sync_directory(self.path / BACKUPS)
        self.clear_unfinished()

    def clear_unfinished(self) -> None:
        """Forget what an interrupted backup left, except its objects."""
        for left in list((self.path / UNFINISHED).iterdir()):
            left.unlink()

    def remove_backup(self, name: str) -> None:
        (self.path / BACKUPS / (name + SUFFIX)).unlink()

    def sync_backups(self) -> None:
        fsync.sync_directory(self.path / BACKUPS)

    def object_size(self, digest: str) -> int:
        return (self.path / object_name(digest)).stat().st_size

    def remove_object(self, digest: str) -> int:
        """Returns the bytes that were freed."""
        size = self.object_size(digest)
        (self.path / object_name(digest)).unlink()
        return size


def _is_folder(name: str) -> bool:
    return len(name) == 2 and set(name) <= set("0123456789abcdef")


def _is_object(folder: Path, name: str) -> bool:
    return len(name) == 64 and name.startswith(folder.name) and set(name) <= set("0123456789abcdef")
