"""The file system of one life of one disk: ``python -m raftfs.testing.powercut.mount TREE MOUNTPOINT``.

What lies in the folder TREE is durable when it begins. It is told what to do by lines on its standard input, and
answers each with a line of JSON:

    cut             the power goes now
    cut-after N     the power goes before the Nth change from now (a write, a sync, a change of names or sizes)
    survive TREE SEED
                    write what the cut has left into a new folder, and end

When the power has gone, nothing is answered any more, neither yes nor no, as nothing would be. The process of the
server must be killed then, and after that this one: its end wakes what still waits for an answer. A new life needs a
new mount, on which the kernel remembers nothing of the old one.

Writes reach this file system at once; only mapped memory stays in the kernel until it is synced, and the kernel
sends it before the request to sync.
"""

from __future__ import annotations

import ctypes.util
import errno
import json
import os
import random
import stat
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

from raftfs.testing.powercut.image import File, Image

if (_library := ctypes.util.find_library("fuse3")) is not None:
    os.environ["FUSE_LIBRARY_PATH"] = _library
import mfusepy

SIZE_BYTES: Final = 4 * 1024**3
_BLOCK_BYTES: Final = 4096
_FOREVER_S: Final = 1e9
_COLLECT_CHANGES: Final = 2000


class PowerOffFS(mfusepy.Operations):  # type: ignore[misc]
    """The requests of the kernel, answered from an image until the power goes. One request at a time."""

    use_ns = True

    def __init__(self, image: Image) -> None:
        self.image = image
        self.off = False
        self.changes = 0
        self.syncs = 0
        self._cut_at: int | None = None
        self._power = threading.Lock()
        self._handles: dict[int, int] = {}
        self._next_handle = 1

    # --- the power -----------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """No request is carried out any more once this returns."""
        with self._power:
            self.off = True

    def cut_after(self, changes: int) -> None:
        with self._power:
            self._cut_at = self.changes + changes

    def _begin(self, *, change: bool) -> threading.Lock:
        """What each request does first; its answer is worked out while the lock that it gets is held."""
        with self._power:
            if change and not self.off:
                self.changes += 1
                if self._cut_at is not None and self.changes >= self._cut_at:
                    self.off = True
                    say(cut=self.changes)
                elif self.changes % _COLLECT_CHANGES == 0:
                    self.image.collect(self._handles.values())
            off = self.off
        if off:
            self._hang()
        return self._power

    def _hang(self) -> NoReturn:
        while True:
            time.sleep(_FOREVER_S)

    # --- names and what is known of them -------------------------------------------------------------------------

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        # Nobody else changes the files, so the kernel may keep what it has read, and inode numbers are ours.
        config_3.kernel_cache = config_3.use_ino = config_3.hard_remove = 1
        say(ready=True)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        with self._begin(change=False):
            inode = self._inode(path, fh)
            node = self.image.inodes[inode]
            size = len(node.data) if isinstance(node, File) else 0
            times = dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), node.mtime_ns)
            links = 1 if isinstance(node, File) else 2
            blocks = -(-size // 512)
            return {
                "st_ino": inode,
                "st_mode": node.mode,
                "st_nlink": links,
                "st_size": size,
                "st_blocks": blocks,
                **times,
            }

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        with self._begin(change=False):
            inode = self.image.find(path)
            names = {".": inode, "..": inode, **self.image.directory(inode).names}
            return [(name, {"st_ino": of, "st_mode": self.image.inodes[of].mode}, 0) for name, of in names.items()]

    def statfs(self, path: str) -> dict[str, int]:
        with self._begin(change=False):
            free = max(0, SIZE_BYTES - self.image.used_bytes()) // _BLOCK_BYTES
        blocks = SIZE_BYTES // _BLOCK_BYTES
        sizes = {"f_bsize": _BLOCK_BYTES, "f_frsize": _BLOCK_BYTES, "f_namemax": 255}
        return {**sizes, "f_blocks": blocks, "f_bfree": free, "f_bavail": free}

    def mkdir(self, path: str, mode: int) -> int:
        # Not counted as a change: the 256 folders of a new chunk store would drown everything else.
        with self._begin(change=False):
            self.image.make_directory(path, stat.S_IMODE(mode), time.time_ns())
        return 0

    def create(self, path: str, mode: int, flags: int) -> int:
        with self._begin(change=True):
            return self._open(self.image.create(path, stat.S_IMODE(mode), time.time_ns()))

    def unlink(self, path: str) -> int:
        with self._begin(change=True):
            self.image.remove(path)
        return 0

    def rmdir(self, path: str) -> int:
        return self.unlink(path)

    def rename(self, old: str, new: str) -> int:
        with self._begin(change=True):
            self.image.rename(old, new)
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        with self._begin(change=True):
            self.syncs += 1
            self.image.sync_directory(self.image.find(path))
        return 0

    # --- files ---------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        with self._begin(change=bool(flags & os.O_TRUNC)):
            inode = self.image.find(path)
            file = self.image.file(inode)
            if flags & os.O_TRUNC:
                file.truncate(0, time.time_ns())
            return self._open(inode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        with self._begin(change=False):
            return bytes(memoryview(self.image.file(self._handles[fh]).data)[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        with self._begin(change=True):
            self.image.file(self._handles[fh]).write(data, offset, time.time_ns())
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        with self._begin(change=True):
            self.image.file(self._inode(path, fh)).truncate(length, time.time_ns())
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        with self._begin(change=True):
            self.syncs += 1
            self.image.file(self._handles[fh]).sync(data_only=bool(datasync))
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        with self._begin(change=True):
            self.image.inodes[self.image.find(path)].mtime_ns = time.time_ns() if times is None else times[1]
        return 0

    def chmod(self, path: str, mode: int) -> int:
        with self._begin(change=False):
            node = self.image.inodes[self.image.find(path)]
            node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        with self._begin(change=False):
            del self._handles[fh]
        return 0

    def _open(self, inode: int) -> int:
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[handle] = inode
        return handle

    def _inode(self, path: str | None, handle: int | None) -> int:
        if handle is not None and handle in self._handles:
            return self._handles[handle]
        if path is None:
            raise OSError(errno.ENOENT, "a file without a name")
        return self.image.find(path)


def say(**values: Any) -> None:
    """One line of JSON, in one piece."""
    os.write(1, (json.dumps(values) + "\n").encode())


def obey(files: PowerOffFS) -> NoReturn:
    """Carry out what is asked for on the standard input; its end (or an error) is the end of this process."""
    try:
        for line in sys.stdin:
            _do(files, *line.split())
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _do(files: PowerOffFS, word: str, *rest: str) -> None:
    match word:
        case "cut":
            files.cut()
            say(cut=files.changes)
        case "cut-after":
            files.cut_after(int(rest[0]))
            say(armed=True)
        case "survive":
            files.cut()
            counts = files.image.lose_power(random.Random(rest[1]), Path(rest[0]))
            say(survived=True, changes=files.changes, syncs=files.syncs, **counts)
            os._exit(0)


def main() -> None:
    tree, mountpoint = sys.argv[1:3]
    files = PowerOffFS(Image.load(Path(tree)))
    threading.Thread(target=obey, args=(files,), daemon=True).start()
    mfusepy.FUSE(
        files,
        mountpoint,
        foreground=True,
        nothreads=True,
        fsname="raftfs-powercut",
        attr_timeout=_FOREVER_S,
        entry_timeout=_FOREVER_S,
    )


if __name__ == "__main__":
    main()
