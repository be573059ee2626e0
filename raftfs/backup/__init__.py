"""Backups of a cluster: made from a running one, checked without one, and put into a new or a live one.

What a client may read comes in: the tree at one revision, page by page with the digests of all chunks, and the bytes of
those that are not there yet. Out go a directory in which backups share their chunks, or a tar stream; and from either
of them, files again. Every byte is compared with its digest when it arrives, when it is checked, and before it is
restored. What may never happen here: an unfinished backup that looks like one, two revisions mixed, a damaged byte
restored, or a file of a cluster overwritten by a restore that was not told to. The server is never imported.
"""

from pathlib import Path

from raftfs.backup.create import Created, create, create_tar, create_tar_file
from raftfs.backup.manifest import Info
from raftfs.backup.restore import Existing, Restored, restore, restore_paths
from raftfs.backup.retention import Policy, Pruned, list_backups, prune
from raftfs.backup.store import BackupDirectory, Source
from raftfs.backup.tar import TarSource
from raftfs.backup.verify import Finding, Report, verify

__all__ = [
    "Created",
    "Existing",
    "Finding",
    "Info",
    "Policy",
    "Pruned",
    "Report",
    "Restored",
    "Source",
    "create",
    "create_tar",
    "create_tar_file",
    "list_backups",
    "open_source",
    "prune",
    "restore",
    "restore_paths",
    "verify",
]


def open_source(path: Path | str) -> Source:
    """A directory of backups or a tar file, to be read; close it. Nobody can change a directory meanwhile.

    Raises NotFound, InvalidRequest (something else), Conflict (in use), CorruptData, OSError.
    """
    path = Path(path)
    return TarSource(path) if path.is_file() else BackupDirectory(path, exclusive=False)
