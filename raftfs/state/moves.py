"""Rename and copy.

Renaming ends one name and adds another: O(1) for a directory of any size, and no version changes. Copying adds names
and versions that share the content of their sources: no bytes move. Each copied file gets a revision of its own, so
that a revision names one version of one file in the whole store (an ETag made of it stays strong even when copied
files change places); a copied directory with n files therefore moves the namespace's revision by n. Its top name
begins at the last of them, so nobody sees half a copy.
"""

from __future__ import annotations

from raftfs import limits, paths
from raftfs.state import namespace
from raftfs.state.commands import Code, Copy, Rename, Result
from raftfs.state.namespace import Version
from raftfs.state.refusals import Refused, check_path
from raftfs.state.tree import Spot, Tree, check_match, require


class Moves:
    """The two commands with a source and a target."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._db = tree.db
        self._meta = tree.meta

    def rename(self, command: Rename) -> Result:
        source, target = self._check(command)
        moved = require(command.source, source.present)
        if command.source == command.target:
            return Result(Code.OK, self._meta.revision, namespace.to_stat(command.target, moved))
        revision = self._meta.next_revision()
        if target.present is not None:
            self._tree.end_name(target, revision)
        parent = self._tree.make_parents(target, revision)
        self._tree.end_name(source, revision)
        namespace.add_name(self._db, parent, target.name, moved.inode, revision)
        return Result(target.done, revision, namespace.to_stat(command.target, moved))

    def copy(self, command: Copy) -> Result:
        source, target = self._check(command)
        original = require(command.source, source.present)
        if command.source == command.target:
            return Result(Code.OK, self._meta.revision, namespace.to_stat(command.target, original))
        made = self._copy_directory(original, target) if original.is_directory else self._copy_file(original, target)
        return Result(target.done, self._meta.revision, namespace.to_stat(command.target, made))

    def _check(self, command: Rename | Copy) -> tuple[Spot, Spot]:
        """Refuse what must not be moved or copied; returns the spots of source and target."""
        check_path(command.source)
        check_path(command.target)
        if command.source == paths.ROOT:
            raise Refused(Code.INTO_ITSELF, "/ contains every target")
        source = self._tree.spot(command.source, parents=False)
        moved = require(command.source, source.present)
        if command.if_match is not None:
            check_match(command.source, moved, command.if_match)
        if command.target == paths.ROOT:
            raise Refused(Code.INTO_ITSELF, "/ contains every source and cannot be replaced")
        target = self._tree.spot(command.target, command.parents)
        if moved.inode in target.chain:
            raise Refused(Code.INTO_ITSELF, f"{command.target} is inside {command.source}")
        self._check_target(command, moved, source, target)
        return source, target

    def _check_target(self, command: Rename | Copy, moved: Version, source: Spot, target: Spot) -> None:
        present = target.present
        if present is None:
            return
        if not command.replace:
            raise Refused(Code.ALREADY_EXISTS, f"{command.target} exists already")
        if present.is_directory and not moved.is_directory:
            raise Refused(Code.IS_A_DIRECTORY, f"{command.target} is a directory, {command.source} is a file")
        if not present.is_directory and moved.is_directory:
            raise Refused(Code.NOT_A_DIRECTORY, f"{command.target} is a file, {command.source} is a directory")
        if present.inode in source.chain:
            raise Refused(Code.INTO_ITSELF, f"{command.source} is inside {command.target}, which would be replaced")

    def _copy_file(self, original: Version, target: Spot) -> Version:
        revision = self._meta.next_revision()
        now = self._meta.clock_ms
        old = target.present
        made = original._replace(
            inode=old.inode if old else self._meta.next_inode(),
            rev_from=revision,
            created_ms=old.created_ms if old else now,
            modified_ms=now,
        )
        self._tree.put_version(target, made, revision)
        return made

    def _copy_directory(self, original: Version, target: Spot) -> Version:
        files = self._count_files(original.inode)
        next_file = self._meta.revision + 1
        revision = self._meta.revision = self._meta.revision + max(1, files)
        if target.present is not None:
            self._tree.end_name(target, revision)
        parent = self._tree.make_parents(target, revision)
        top = self._tree.add_directory(parent, target.name, revision, original.metadata)
        waiting = [(original.inode, top.inode)]
        while waiting:
            from_inode, to_inode = waiting.pop()
            for name, version in self._entries(from_inode):
                if version.is_directory:
                    made = self._tree.add_directory(to_inode, name, revision, version.metadata)
                    waiting.append((version.inode, made.inode))
                else:
                    self._add_copy(to_inode, name, version, revision, next_file)
                    next_file += 1
        return top

    def _add_copy(self, parent: int, name: str, original: Version, name_revision: int, revision: int) -> None:
        now = self._meta.clock_ms
        made = original._replace(inode=self._meta.next_inode(), rev_from=revision, created_ms=now, modified_ms=now)
        namespace.add_version(self._db, made)
        namespace.add_name(self._db, parent, name, made.inode, name_revision)

    def _count_files(self, directory: int) -> int:
        """Files below a directory; refuses when there is more than one transaction should copy."""
        files, entries, waiting = 0, 0, [directory]
        while waiting:
            rows = self._db.execute(
                "SELECT v.inode, v.content IS NULL FROM dirent d CROSS JOIN version v ON v.inode = d.inode"
                " WHERE d.parent = ? LIMIT ?",
                (waiting.pop(), limits.COPY_ENTRIES_MAX + 1),
            ).fetchall()
            entries += len(rows)
            if entries > limits.COPY_ENTRIES_MAX:
                raise Refused(Code.INVALID, f"the directory holds more than {limits.COPY_ENTRIES_MAX} entries to copy")
            waiting += [inode for inode, is_directory in rows if is_directory]
            files += sum(not is_directory for _, is_directory in rows)
        return files

    def _entries(self, directory: int) -> list[tuple[str, Version]]:
        return namespace.children(self._db, directory, "", limits.COPY_ENTRIES_MAX)
