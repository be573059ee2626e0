"""Which backups to keep, and removing the others with what only they need."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raftfs.backup import manifest
from raftfs.backup.manifest import Info, More
from raftfs.backup.scratch import References
from raftfs.backup.store import BackupDirectory
from raftfs.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Policy:
    """How many backups to keep: the ``last`` ones, and the newest one of each of so many days, weeks and months (UTC)
    that have any. What one of them keeps is kept."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    def keep(self, backups: Sequence[Info]) -> set[str]:
        """Names of the backups to keep; the newest is always among them. ``backups``: oldest first."""
        newest_first = list(reversed(backups))
        kept = {info.name for info in newest_first[: max(self.last, 1)]}
        for count, period in ((self.daily, "%Y-%m-%d"), (self.weekly, "%G-%V"), (self.monthly, "%Y-%m")):
            kept |= _newest_of_each(newest_first, count, _moment(period))
        return kept


def _moment(period: str) -> Callable[[Info], str]:
    return lambda info: time.strftime(period, time.gmtime(info.created_ms / 1000))


def _newest_of_each(newest_first: Sequence[Info], count: int, period: Callable[[Info], str]) -> set[str]:
    found: dict[str, str] = {}
    for info in newest_first:
        found.setdefault(period(info), info.name)
    return set(list(found.values())[:count])


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed (or would be), and what stays."""

    removed: list[Info]
    kept: list[Info]
    objects: int
    size: int


def list_backups(directory: Path) -> list[Info]:
    """The finished backups in a directory, oldest first. Raises NotFound, InvalidRequest, Conflict, CorruptData."""
    target = BackupDirectory(directory, exclusive=False)
    try:
        return target.infos()
    finally:
        target.close()


def prune(directory: Path, policy: Policy, *, dry_run: bool = False) -> Pruned:
    """Remove the backups that the policy does not keep, and all objects that no kept one needs. Blocking.

    Nothing is removed unless every manifest that stays is whole: what a damaged one needs cannot be known. Interrupted,
    it has removed some of it; run it again. Raises InvalidRequest (a policy that keeps nothing by choice), Conflict (in
    use), CorruptData, OSError.
    """
    if max(policy.last, policy.daily, policy.weekly, policy.monthly) < 1:
        raise InvalidRequest("say how many backups to keep")
    target = BackupDirectory(directory, exclusive=True)
    references = References()
    try:
        infos = target.infos()
        keep = policy.keep(infos)
        kept = [info for info in infos if info.name in keep]
        removed = [info for info in infos if info.name not in keep]
        for info in kept:
            _refer(target, info.name, references)
        if not dry_run:
            for info in removed:
                target.remove_backup(info.name)
            target.sync_backups()
            target.clear_unfinished()
        objects = size = 0
        for digest in target.objects():
            if not references.has(digest):
                objects += 1
                size += target.object_size(digest) if dry_run else target.remove_object(digest)
        return Pruned(removed, kept, objects, size)
    finally:
        references.close()
        target.close()


def _refer(target: BackupDirectory, name: str, references: References) -> None:
    with target.open_manifest(name) as file:
        for line in manifest.Reader(file, name).lines():
            if isinstance(line, manifest.File | More):
                for chunk in line.chunks:
                    references.add(chunk, "")
