"""Making backups: what they hold, that only new chunks are fetched, and that nothing unfinished looks like one."""

from __future__ import annotations

import asyncio
import io
import random
import tarfile
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from raftfs import backup, errors
from raftfs.backup.store import BACKUPS, UNFINISHED, BackupDirectory
from raftfs.client import AsyncClient, Progress
from raftfs.models import ExportPage

from .making import CHUNK, files_of, plant, tree


class Interrupted(Exception):
    pass


class Interfered(AsyncClient):
    """A client whose reads of chunks can be counted, changed or broken."""

    meddle: Callable[[str, bytes], Awaitable[bytes]] | None = None
    reads = 0

    async def read(self, path: str, **options: object) -> bytes:
        data = await super().read(path, **options)  # type: ignore[arg-type]
        self.reads += 1
        return data if self.meddle is None else await self.meddle(path, data)


def names(folder: Path) -> list[str]:
    return [info.name for info in backup.list_backups(folder)]


def whole(path: Path) -> bool:
    with closing(backup.open_source(path)) as source:
        return not backup.verify(source).findings


async def test_a_backup_is_of_one_revision_and_says_so(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    revision = (await client.list_page("/")).revision
    done = await backup.create(client, tmp_path / "b")
    assert (done.backup.revision, done.backup.cluster_id) == (revision, "test")
    assert (done.backup.files, done.backup.directories) == (7, 5)
    assert done.backup.size == sum(len(data) for _, data, _, _ in (await tree(client)).values() if data)
    assert backup.list_backups(tmp_path / "b") == [done.backup]
    assert whole(tmp_path / "b")


async def test_what_is_there_is_not_fetched_again(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    reader = Interfered(client.options.endpoints)
    async with reader:
        first = await backup.create(reader, tmp_path / "b")
        reader.reads = 0
        await client.rename("/docs", "/renamed")
        await client.copy("/large", "/copy")
        second = await backup.create(reader, tmp_path / "b")
        assert (second.new_objects, second.new_bytes, reader.reads) == (0, 0, 0)
        await client.write("/new", b"n" * 100)
        await client.write("/newer", random.Random(7).randbytes(CHUNK))
        third = await backup.create(reader, tmp_path / "b")
        assert (third.new_bytes, reader.reads) == (CHUNK + 100, 1)
    assert first.new_bytes > CHUNK
    assert whole(tmp_path / "b")
    assert len(names(tmp_path / "b")) == 3


async def test_a_tar_stream_unpacked_is_a_directory_of_backups(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    stream = io.BytesIO()
    done = await backup.create_tar(client, stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert whole(tmp_path / "unpacked")
    assert backup.list_backups(tmp_path / "unpacked") == [done.backup]
    await client.write("/another", b"one")
    assert (await backup.create(client, tmp_path / "unpacked")).new_bytes == 3


async def test_bytes_that_do_not_fit_their_digest_are_refused(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)

    async def flip(path: str, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:]

    async with Interfered(client.options.endpoints) as reader:
        reader.meddle = flip
        with pytest.raises(errors.CorruptData, match="another digest"):
            await backup.create(reader, tmp_path / "b")
        with pytest.raises(errors.CorruptData, match="another digest"):
            await backup.create_tar_file(reader, tmp_path / "b.tar")
    assert names(tmp_path / "b") == []
    assert not list(tmp_path.glob("*.tar*"))


async def test_an_interrupted_backup_is_none_and_the_next_one_goes_on(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    for number in range(4):
        await client.write(f"/z{number}", random.Random(number).randbytes(CHUNK))

    async def stop(path: str, data: bytes) -> bytes:
        if path == "/z2":
            raise Interrupted
        return data

    async with Interfered(client.options.endpoints) as reader:
        reader.meddle = stop
        with pytest.raises(Interrupted):
            await backup.create(reader, tmp_path / "b", concurrency=1)
        assert names(tmp_path / "b") == []
        before = files_of(tmp_path / "b")
        reader.meddle, reader.reads = None, 0
        done = await backup.create(reader, tmp_path / "b", concurrency=1)
        assert reader.reads <= 3, "what the first attempt brought is there"
    after = files_of(tmp_path / "b")
    objects = {name: data for name, data in before.items() if name.startswith("objects/")}
    assert objects
    assert objects.items() <= after.items()
    assert not list((tmp_path / "b" / UNFINISHED).iterdir())
    assert whole(tmp_path / "b")
    assert done.backup.files == 11


async def test_writes_during_a_backup_do_not_get_into_it(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    before = await tree(client)

    async def write(path: str, data: bytes) -> bytes:
        if await client.exists("/moved"):
            return data
        await client.remove("/large")
        await client.write("/large", b"other")
        await client.rename("/docs", "/moved")
        await client.write("/docs/new", b"later", parents=True)
        return data

    async with Interfered(client.options.endpoints) as reader:
        reader.meddle = write
        done = await backup.create(reader, tmp_path / "b", concurrency=1)
    assert await tree(client, revision=done.backup.revision) == before
    assert whole(tmp_path / "b")


async def test_where_a_backup_may_go(tmp_path: Path, client: AsyncClient) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    with pytest.raises(errors.InvalidRequest, match="not empty"):
        await backup.create(client, tmp_path / "full")
    assert files_of(tmp_path / "full") == {"mine": b"precious"}
    BackupDirectory.prepare(tmp_path / "other", "another-cluster").close()
    with pytest.raises(errors.Conflict, match="another-cluster"):
        await backup.create(client, tmp_path / "other")
    await backup.create_tar_file(client, tmp_path / "one.tar")
    with pytest.raises(errors.AlreadyExists):
        await backup.create_tar_file(client, tmp_path / "one.tar")
    # Interrupted between making the directory and marking it: it is still empty.
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "raftfs-backups.json.new").write_text("")
    await backup.create(client, tmp_path / "begun")
    assert whole(tmp_path / "begun")


async def test_two_do_not_work_in_one_directory(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    entered = asyncio.Event()
    go_on = asyncio.Event()

    async def wait(path: str, data: bytes) -> bytes:
        entered.set()
        await go_on.wait()
        return data

    async with Interfered(client.options.endpoints) as reader:
        reader.meddle = wait
        first = asyncio.create_task(backup.create(reader, tmp_path / "b"))
        await entered.wait()
        for attempt in (
            lambda: backup.create(client, tmp_path / "b"),
            lambda: asyncio.to_thread(backup.prune, tmp_path / "b", backup.Policy(last=1)),
            lambda: asyncio.to_thread(backup.open_source, tmp_path / "b"),
        ):
            with pytest.raises(errors.Conflict, match="in use"):
                await attempt()
        go_on.set()
        await first
    assert whole(tmp_path / "b")


async def test_pages_of_two_revisions_are_refused(tmp_path: Path, client: AsyncClient) -> None:
    class Confused(AsyncClient):
        async def export_page(self, *arguments: object, **options: object) -> ExportPage:
            page = await super().export_page(*arguments, **options)  # type: ignore[arg-type]
            page.next = "more" if options.get("cursor") is None else None
            page.revision += len(page.next or "")
            return page

    async with Confused(client.options.endpoints) as confused:
        with pytest.raises((errors.BadAnswer, errors.InvalidRequest)):
            await backup.create(confused, tmp_path / "b")
    assert names(tmp_path / "b") == []


async def test_progress_counts_what_was_covered(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    told: list[Progress] = []
    done = await backup.create(client, tmp_path / "b", report=told.append)
    assert (told[-1].done_bytes, told[-1].done_files) == (done.backup.size, done.backup.files)


def info(day: int, hour: int = 0) -> backup.Info:
    return backup.Info(f"{day:04d}-{hour:02d}", "c", day, (day * 24 + hour) * 3_600_000, 0, 1, 0)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (backup.Policy(last=2), ["0030-00", "0030-12"]),
        (backup.Policy(daily=3), ["0028-12", "0029-12", "0030-12"]),
        (backup.Policy(weekly=2), ["0024-12", "0030-12"]),  # day 0 was a Thursday, so day 24 a Sunday
        (backup.Policy(monthly=2), ["0030-12"]),
        (backup.Policy(last=1, daily=2), ["0029-12", "0030-12"]),
        (backup.Policy(last=999), [info(day, hour).name for day in range(31) for hour in (0, 12)]),
    ],
)
def test_what_a_policy_keeps(policy: backup.Policy, kept: list[str]) -> None:
    backups = [info(day, hour) for day in range(31) for hour in (0, 12)]
    assert policy.keep(backups) == set(kept)


async def test_prune_removes_what_only_old_backups_need(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    first = (await backup.create(client, tmp_path / "b")).backup
    await client.write("/large", random.Random(3).randbytes(CHUNK))
    second = (await backup.create(client, tmp_path / "b")).backup
    policy = backup.Policy(last=1)
    before = files_of(tmp_path / "b")
    planned = backup.prune(tmp_path / "b", policy, dry_run=True)
    assert files_of(tmp_path / "b") == before
    done = backup.prune(tmp_path / "b", policy)
    assert done == planned
    assert (done.removed, done.kept, done.objects, done.size) == ([first], [second], 1, CHUNK)
    assert whole(tmp_path / "b")
    assert backup.prune(tmp_path / "b", policy).objects == 0
    with pytest.raises(errors.InvalidRequest):
        backup.prune(tmp_path / "b", backup.Policy())


async def test_prune_removes_nothing_if_it_cannot_know_what_is_needed(tmp_path: Path, client: AsyncClient) -> None:
    await plant(client)
    await backup.create(client, tmp_path / "b")
    await client.write("/large", b"gone")
    newest = (await backup.create(client, tmp_path / "b")).backup
    manifest = tmp_path / "b" / BACKUPS / f"{newest.name}.jsonl"
    manifest.write_bytes(manifest.read_bytes().replace(b"/docs/same", b"/docs/sane"))
    before = files_of(tmp_path / "b")
    with pytest.raises(errors.CorruptData):
        backup.prune(tmp_path / "b", backup.Policy(last=1))
    assert files_of(tmp_path / "b") == before
