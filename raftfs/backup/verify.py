"""Checking backups without a cluster: everything is read, and compared with the digests by which it is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from blake3 import blake3

from raftfs.backup import manifest
from raftfs.backup.manifest import Info, More
from raftfs.backup.scratch import References
from raftfs.backup.store import MARKER, Source, object_name
from raftfs.errors import CorruptData, NotFound


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. ``what`` names a file of the backup."""

    kind: Literal["missing", "damaged", "extra"]
    what: str
    detail: str


@dataclass(slots=True)
class Report:
    """What was looked at and what was found. ``backups``: those whose manifests are whole."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    backups: list[Info] = field(default_factory=list)
    objects: int = 0
    size: int = 0


def verify(source: Source, moved: Callable[[int], object] | None = None) -> Report:
    """Look through all backups of a source. ``moved`` is told the bytes that were read so far. Blocking.

    Missing: what a backup needs and is not there. Damaged: bytes that do not have their digest, manifests that are not
    whole. Extra: what does not belong there. Objects that no backup refers to are no damage: an interrupted backup
    leaves them. Raises DataTooNew, OSError.
    """
    report = Report(notes=list(source.notes()))
    references = References()
    try:
        names = source.names()
        if not names:
            report.findings.append(Finding("missing", "backups", "no finished backup is here"))
        for name in names:
            _manifest(source, name, references, report)
        _objects(source, references, report, moved)
        for digest, path in references.unseen():
            report.findings.append(Finding("missing", object_name(digest), f"{path} needs it"))
        for what in source.strange():
            report.findings.append(Finding("extra", what, "it does not belong here"))
    finally:
        references.close()
    return report


def _manifest(source: Source, name: str, references: References, report: Report) -> None:
    try:
        with source.open_manifest(name) as file:
            reader = manifest.Reader(file, name)
            if reader.head.cluster_id != source.mark.cluster_id:
                raise CorruptData(
                    f"it is of cluster {reader.head.cluster_id}, and {MARKER} says {source.mark.cluster_id}"
                )
            path = ""
            for line in reader.lines():
                if isinstance(line, manifest.Directory):
                    continue
                if not isinstance(line, More):
                    path = line.path
                for chunk in line.chunks:
                    references.add(chunk, path)
            report.backups.append(reader.info())
    except CorruptData as error:
        report.findings.append(Finding("damaged", f"backup {name}", error.detail))


def _objects(source: Source, references: References, report: Report, moved: Callable[[int], object] | None) -> None:
    unused = 0
    for digest in source.objects():
        needed = references.see(digest)
        unused += needed is None
        fault = _fault(source, digest, needed[0] if needed else 0, references, report)
        if fault:
            use = f"{needed[1]} needs it" if needed else "no backup needs it"
            report.findings.append(Finding("damaged", object_name(digest), f"{fault}; {use}"))
        if moved is not None:
            moved(report.size)
    if unused:
        report.notes.append(f"{unused} objects belong to no backup: an interrupted one left them, `prune` removes them")


def _fault(source: Source, digest: str, end: int, references: References, report: Report) -> str | None:
    """What is wrong with an object."""
    try:
        data = source.read_object(digest)
    except (CorruptData, NotFound) as error:
        return error.detail
    report.objects += 1
    report.size += len(data)
    if blake3(data).hexdigest() != digest:
        return "its bytes do not have the digest that it is named by"
    if len(data) < end:
        return f"it has {len(data)} bytes, and {end} are needed"
    for at, length, content in references.parts(digest):
        if blake3(memoryview(data)[at : at + length]).hexdigest() != content:
            return f"bytes {at} to {at + length} are not the content that a backup has them for"
    return None
