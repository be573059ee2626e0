"""Restoring: a new cluster is what the backup holds, paths come back, nothing is overwritten, damage goes nowhere."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from raftfs import backup, errors
from raftfs.backup.store import OBJECTS
from raftfs.client import AsyncClient

from .making import CHUNK, plant, tree


@contextmanager
def opened(path: Path) -> Iterator[backup.Source]:
    with closing(backup.open_source(path)) as source:
        yield source


@pytest.fixture
async def saved(tmp_path: Path, client: AsyncClient) -> Path:
    await plant(client)
    await backup.create(client, tmp_path / "b")
    await backup.create_tar_file(client, tmp_path / "b.tar")
    return tmp_path / "b"


@pytest.mark.parametrize("suffix", ["", ".tar"])
async def test_a_new_cluster_is_what_the_backup_holds(
    saved: Path, client: AsyncClient, other: AsyncClient, suffix: str
) -> None:
    with opened(Path(f"{saved}{suffix}")) as source:
        done = await backup.restore(other, source)
        assert await tree(other) == await tree(client)
        assert done.revision == (await other.list_page("/")).revision
        again = await backup.restore(other, source)
        assert (again.written, again.same, again.revision) == (0, done.written + done.same, done.revision)


async def test_the_newest_or_the_one_that_is_named(saved: Path, client: AsyncClient, other: AsyncClient) -> None:
    before = await tree(client)
    (first,) = backup.list_backups(saved)
    await client.remove("/docs", recursive=True)
    second = (await backup.create(client, saved)).backup
    with opened(saved) as source:
        assert (await backup.restore(other, source, name=first.name)).backup == first
        assert await tree(other) == before
        await other.remove("/docs", recursive=True)
        assert (await backup.restore(other, source)).backup == second
        with pytest.raises(errors.NotFound):
            await backup.restore(other, source, name="../raftfs-backups")
        with pytest.raises(errors.NotFound):
            await backup.restore(other, source, name="gone")


async def test_a_cluster_that_is_not_empty_is_refused_untouched(saved: Path, other: AsyncClient) -> None:
    await other.write("/docs/a.txt", b"mine", parents=True)
    await other.write("/extra", b"mine, too")
    before = await tree(other)
    with opened(saved) as source, pytest.raises(errors.Conflict, match="not empty") as caught:
        await backup.restore(other, source)
    assert "/extra is not in the backup" in str(caught.value)
    assert "/docs/a.txt" in str(caught.value)
    assert await tree(other) == before


async def test_an_interrupted_restore_goes_on(saved: Path, client: AsyncClient, other: AsyncClient) -> None:
    class Failing(AsyncClient):
        writes = 0

        async def write(self, path: str, data: object, **options: object):  # type: ignore[no-untyped-def]
            self.writes += 1
            if self.writes > 3:
                raise errors.Unavailable("gone")
            return await super().write(path, data, **options)  # type: ignore[arg-type]

    async with Failing(other.options.endpoints) as failing:
        with opened(saved) as source, pytest.raises(errors.Unavailable):
            await backup.restore(failing, source, concurrency=1)
    assert len(await tree(other)) < len(await tree(client))
    with opened(saved) as source:
        done = await backup.restore(other, source)
    assert done.same >= 3
    assert await tree(other) == await tree(client)


async def test_damage_is_never_restored(saved: Path, other: AsyncClient) -> None:
    largest = max((path for path in (saved / OBJECTS).rglob("*") if path.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    with opened(saved) as source:
        with pytest.raises(errors.CorruptData, match=largest.name):
            await backup.restore(other, source)
        assert not await other.exists("/large")
        largest.unlink()
        with pytest.raises(errors.NotFound, match=largest.name):
            await backup.restore(other, source)
    assert not await other.exists("/large")


async def test_somebody_else_writes_during_a_restore(saved: Path, other: AsyncClient) -> None:
    class Raced(AsyncClient):
        async def write(self, path: str, data: object, **options: object):  # type: ignore[no-untyped-def]
            if path == "/large":
                await other.write(path, b"theirs")
            return await super().write(path, data, **options)  # type: ignore[arg-type]

    async with Raced(other.options.endpoints) as raced:
        with opened(saved) as source, pytest.raises(errors.Conflict, match="/large"):
            await backup.restore(raced, source)
    assert await other.read("/large") == b"theirs"


async def test_paths_come_back_into_a_live_cluster(saved: Path, client: AsyncClient) -> None:
    before = await tree(client)
    await client.remove("/docs", recursive=True)
    await client.write("/other", b"stays")
    with opened(saved) as source:
        done = await backup.restore_paths(client, source, ["/docs", "/large"])
        assert done.same == 1
        assert await tree(client) == {**before, "/other": await _one(client, "/other")}
        await backup.restore_paths(client, source, ["/docs"], to="/copies/docs")
        await backup.restore_paths(client, source, ["/docs/a.txt"], to="/single")
    copied = await tree(client, "/copies/docs")
    assert {path.removeprefix("/copies"): what for path, what in copied.items()} == {
        path: what for path, what in before.items() if path == "/docs" or path.startswith("/docs/")
    }
    assert await client.read("/single") == b"alpha"


async def _one(client: AsyncClient, path: str) -> object:
    return (await tree(client, path))[path]


async def test_what_differs_is_refused_skipped_or_replaced(saved: Path, client: AsyncClient) -> None:
    before = await tree(client)
    changed = random.Random(5).randbytes(CHUNK + 1)
    await client.write("/large", changed)
    await client.write("/docs/a.txt", b"changed")
    await client.remove("/docs/same")
    with opened(saved) as source:
        with pytest.raises(errors.AlreadyExists, match=r"/docs/a\.txt"):
            await backup.restore_paths(client, source, ["/docs", "/large"])
        assert not await client.exists("/docs/same"), "a refusal comes before the first write"
        skipped = await backup.restore_paths(client, source, ["/docs", "/large"], existing="skip")
        assert (skipped.skipped, skipped.written) == (2, 1)
        assert await client.read("/large") == changed
        replaced = await backup.restore_paths(client, source, ["/docs", "/large"], existing="replace")
        assert (replaced.skipped, replaced.written) == (0, 2)
    assert await tree(client) == before


@pytest.mark.parametrize("existing", ["refuse", "skip", "replace"])
async def test_a_directory_never_takes_a_files_place(
    saved: Path, client: AsyncClient, existing: backup.Existing
) -> None:
    await client.remove("/docs", recursive=True)
    await client.write("/docs", b"a file now")
    await client.remove("/large")
    await client.mkdir("/large")
    with opened(saved) as source:
        for path in ("/docs", "/large"):
            with pytest.raises(errors.AlreadyExists, match=path):
                await backup.restore_paths(client, source, [path], existing=existing)
    assert await client.read("/docs") == b"a file now"


async def test_what_cannot_be_asked_for(saved: Path, client: AsyncClient) -> None:
    with opened(saved) as source:
        with pytest.raises(errors.NotFound, match="/gone"):
            await backup.restore_paths(client, source, ["/gone"])
        for tops, to in (([], None), (["/docs", "/large"], "/x"), (["/docs", "/docs/a.txt"], None)):
            with pytest.raises(errors.InvalidRequest):
                await backup.restore_paths(client, source, tops, to=to)
        with pytest.raises(errors.InvalidPath):
            await backup.restore_paths(client, source, ["/a/../b"])
