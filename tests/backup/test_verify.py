"""Every part of a backup that is damaged, missing or foreign is noticed, in a directory and in a tar file."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from raftfs import backup
from raftfs.backup.store import BACKUPS, MARKER, OBJECTS
from raftfs.client import AsyncClient
from raftfs.errors import CorruptData, DataTooNew, InvalidRequest, NotFound

from .making import plant

Check = Callable[[Path], backup.Report]


def verify(path: Path) -> backup.Report:
    """As the command does it: what cannot even be opened is damage."""
    try:
        with closing(backup.open_source(path)) as source:
            return backup.verify(source)
    except (CorruptData, DataTooNew, NotFound, InvalidRequest) as error:
        return backup.Report([backup.Finding("damaged", str(path), str(error))])


def blind(path: Path) -> backup.Report:
    """A check that looks at names and manifests alone, and believes the rest."""
    report = verify(path)
    return backup.Report([one for one in report.findings if not one.what.startswith(OBJECTS) or one.kind == "missing"])


def deaf(path: Path) -> backup.Report:
    """A check that reads objects and believes the manifests."""
    return backup.Report([one for one in verify(path).findings if one.what.startswith(OBJECTS)])


@pytest.fixture
async def whole(tmp_path: Path, client: AsyncClient) -> Path:
    """A folder with a directory of two backups and a tar file of one."""
    await plant(client)
    await backup.create(client, tmp_path / "made" / "dir")
    await client.write("/more", b"x" * 40_000)
    await backup.create(client, tmp_path / "made" / "dir")
    await backup.create_tar_file(client, tmp_path / "made" / "one.tar")
    return tmp_path / "made"


def spots(file: Path) -> list[int]:
    """Offsets that stand for all bytes of a file: of a tar file each header, content, padding and the end; otherwise
    every byte if they are few, or both ends and what lies between them in steps."""
    size = file.stat().st_size
    if file.suffix != ".tar":
        step = max(1, size // 60)
        return sorted({*range(0, size, step), size - 1})
    found = {size - 1024, size - 513, size - 512, size - 1}
    with tarfile.open(file) as tar:
        for member in tar:
            end = member.offset_data + member.size
            padded = end + -end % 512
            found |= {*range(member.offset, member.offset_data, 5), member.offset_data - 1}
            found |= {*range(member.offset_data, end, max(1, member.size // 30)), end - 1, end, padded - 1}
    return sorted(found)


def damaged(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << at % 8)]))


def unnoticed(check: Check, target: Path, file: Path) -> list[str]:
    """Damages of one file that a check does not see."""
    missed = []
    data = file.read_bytes()
    for at in spots(file):
        damaged(file, at)
        if not check(target).findings:
            missed.append(f"flip {file.name} at {at}")
        damaged(file, at)
    for at in {0, 1, len(data) // 2, len(data) - 1}:
        file.write_bytes(data[:at])
        if not check(target).findings:
            missed.append(f"cut {file.name} at {at}")
    file.write_bytes(data + b"\0")
    if not check(target).findings:
        missed.append(f"lengthen {file.name}")
    file.unlink()
    others = list(target.glob(f"{BACKUPS}/*")) if target.is_dir() else []
    if not check(target).findings and not (file.parent.name == BACKUPS and others):
        missed.append(f"delete {file.name}")  # of several backups, one that is removed whole is no damage
    file.write_bytes(data)
    return missed


def in_directory(folder: Path) -> list[Path]:
    """One file of each kind: all are read in the same way."""
    objects = sorted((folder / OBJECTS).rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    objects = [path for path in objects if path.is_file()]
    return [folder / MARKER, *sorted((folder / BACKUPS).iterdir()), objects[0], objects[-1]]


async def test_whole_backups_are_whole(whole: Path) -> None:
    for name, backups in (("dir", 2), ("one.tar", 1)):
        report = verify(whole / name)
        assert (report.findings, report.notes, len(report.backups)) == ([], [], backups)
        assert report.objects >= 4


async def test_any_damage_of_a_directory_is_noticed(whole: Path) -> None:
    target = whole / "dir"
    missed = [one for file in in_directory(target) for one in unnoticed(verify, target, file)]
    assert not missed, missed
    assert not verify(target).findings, "the test put everything back"


async def test_any_damage_of_a_tar_is_noticed(whole: Path) -> None:
    target = whole / "one.tar"
    assert not unnoticed(verify, target, target)
    assert not verify(target).findings, "the test put everything back"


async def test_checks_that_do_not_look_are_caught(whole: Path) -> None:
    target = whole / "dir"
    marker, manifest, *_, largest = in_directory(target)
    assert unnoticed(blind, target, largest)
    assert unnoticed(deaf, target, manifest)
    assert unnoticed(deaf, target, marker)


async def test_what_is_missing_damaged_or_extra_is_named(whole: Path) -> None:
    target = whole / "dir"
    objects = in_directory(target)[-2:]
    objects[0].unlink()
    damaged(objects[1], 5)
    (target / "notes.txt").write_text("mine")
    (target / OBJECTS / "zz").mkdir()
    (target / BACKUPS / "half").write_text("")
    found = {(one.kind, one.what) for one in verify(target).findings}
    assert found == {
        ("missing", str(objects[0].relative_to(target))),
        ("damaged", str(objects[1].relative_to(target))),
        ("extra", "notes.txt"),
        ("extra", "objects/zz"),
        ("extra", "backups/half"),
    }
    needed = next(one.detail for one in verify(target).findings if one.kind == "missing")
    assert needed.startswith("/")


async def test_objects_of_no_backup_are_a_note(whole: Path) -> None:
    target = whole / "dir"
    sorted((target / BACKUPS).iterdir())[-1].unlink()
    report = verify(target)
    assert not report.findings
    assert len(report.notes) == 1
    assert "belong to no backup" in report.notes[0]


async def test_a_directory_without_a_finished_backup_is_none(tmp_path: Path, whole: Path) -> None:
    target = whole / "dir"
    shutil.rmtree(target / BACKUPS)
    assert [one.kind for one in verify(target).findings] == ["missing"]
    (tmp_path / "foreign").mkdir()
    assert verify(tmp_path / "foreign").findings
