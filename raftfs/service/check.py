"""Whether what a node's configuration names is fit for it: its data directory and its certificates. Changes nothing.

Looked at beside a node that runs, too, so nothing here takes the lock or opens the database: a second opener, and be it
one that only reads, can leave files behind that belong to another user.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from raftfs.certificates import read
from raftfs.config import NodeConfig
from raftfs.consensus import RejoinFile
from raftfs.errors import ConfigError, CorruptData
from raftfs.limits import DISK_FREE_BYTES_MIN
from raftfs.service.cluster import disk_space
from raftfs.service.datadir import read_identity
from raftfs.state import refuse_newer
from raftfs.tls import node_credentials, peer_credentials

_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_USER_VERSION: Final = slice(60, 64)
"""Where SQLite keeps ``user_version``, the format version of a state database (its file format document, 1.3.16)."""


def check_files(config: NodeConfig) -> list[str]:
    """Look at the data directory and the certificates; returns what is worth knowing, in words.

    Raises ConfigError (a file that cannot be used, another member's data), CorruptData (damage that shows at once; fsck
    looks deeper) or DataTooNew.
    """
    return [*_check_certificates(config), *_check_data_dir(config)]


def _check_certificates(config: NodeConfig) -> list[str]:
    """Whether the certificates can be loaded, and name whom they are for."""
    notes = []
    if config.peer_tls is not None:
        peer_credentials(config.peer_tls)
        if missing := _missing("peer_tls", config.peer_tls.cert, config.id, exact=True):
            raise ConfigError(missing[0])
    if config.client_tls is not None:
        node_credentials(config.client_tls)
        notes += _missing("client_tls", config.client_tls.cert, urlsplit(config.me.url).hostname or "")
    return notes


def _missing(table: str, cert: Path, name: str, *, exact: bool = False) -> list[str]:
    names = read(cert)[0].names
    wild = not exact and any(each.startswith("*.") and each[1:] == name[name.find(".") :] for each in names)
    return (
        []
        if name in names or wild
        else [f"{table}: the certificate {cert} does not name {name}, but {', '.join(names)}"]
    )


def _check_data_dir(config: NodeConfig) -> list[str]:
    folder = config.data_dir.absolute()
    try:
        if not folder.exists():
            return [f"{folder} is not there yet; the first start makes it, if {_nearest(folder)} lets it"]
        if not folder.is_dir():
            raise ConfigError(f"data_dir {folder} is not a directory")
        return _check_data(config, folder)
    except PermissionError as error:
        raise ConfigError(f"cannot look into data_dir {folder}: {error.strerror}; run this as its owner") from error


def _check_data(config: NodeConfig, folder: Path) -> list[str]:
    notes = []
    identity = read_identity(folder)
    if identity is None:
        notes.append(f"{folder} holds no data yet")
    elif (identity.id, identity.cluster_id) != (config.id, config.cluster_id):
        raise ConfigError(
            f"data_dir {folder} belongs to member {identity.id!r} of cluster {identity.cluster_id!r}, "
            f"not to {config.id!r} of {config.cluster_id!r}"
        )
    mark = RejoinFile(folder)
    if mark.content is not None:
        notes.append(f"this member rejoins since its data were damaged: {'; '.join(mark.content.damaged)}")
    _check_format(folder / "state.db")
    free_bytes, _ = disk_space(folder)
    if free_bytes < DISK_FREE_BYTES_MIN:
        notes.append(f"only {free_bytes} bytes are free in {folder}")
    return notes


def _check_format(path: Path) -> None:
    """As the database's first page says it, which is the format that was active at the last checkpoint, or an older
    one: so only what is too new is known here."""
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    if not head:
        return  # a first start that was cut short: its tables are still in the log beside it
    if not head.startswith(_SQLITE_MAGIC):
        raise CorruptData(f"{path} is damaged at offset 0: it is not a SQLite database")
    refuse_newer(path, int.from_bytes(head[_USER_VERSION], "big"))


def _nearest(folder: Path) -> Path:
    return next(parent for parent in folder.parents if parent.exists())
