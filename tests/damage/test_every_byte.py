"""Each part of each file of a stopped node is damaged in turn: the node refuses, and names the file, or it comes back
and serves what was acknowledged; never anything else, and never is an acknowledged write lost.

Twice: beside two healthy members, while writes go on; and as one of the only two members that run, the other of which
lacks the last writes, so that what the damaged one forgot nobody has.

Some of all damages are tried, drawn by a seed. All of them, which takes hours:
``RAFTFS_TEST_DAMAGE=all pytest tests/damage``; ``RAFTFS_TEST_DAMAGE=500`` tries so many of each.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from raftfs.http import names
from raftfs.service.node import Node
from raftfs.state import pages
from raftfs.testing.ports import free_block

from .cluster import NOBODY, Ledger, Nodes, Refused, fill, fill_large, nodes, restore
from .regions import Damage, all_damages, sample, spoil_both_votes

VICTIM, FULL, LAGGING = "n2", "n1", "n3"
ASKED = os.environ.get("RAFTFS_TEST_DAMAGE", "30")
SEED = int(os.environ.get("RAFTFS_TEST_SEED", secrets.randbits(32)))
STEP = 9_973


@dataclass
class Image:
    """Directories of three nodes at one moment: FULL and VICTIM have all, LAGGING lacks the last writes. VICTIM was
    killed, the others stopped."""

    folder: Path
    ledger: Ledger
    last: tuple[str, bytes, str]
    port: int

    def damages(self, number: str, dice: random.Random) -> list[Damage]:
        found = all_damages(self.folder / VICTIM, step=STEP)
        return found if number == "all" else sample(found, int(number), dice)


async def make_image(folder: Path) -> Image:
    ledger, dice, port = Ledger(), random.Random(SEED), free_block()
    async with nodes(folder / "made", port) as group:
        for name in (FULL, VICTIM, LAGGING):
            await group.start(name)
        await group.level(FULL, VICTIM, LAGGING)
        await fill_large(group, ledger, dice, through=FULL)
        await fill(group, ledger, dice, writes=150, through=FULL, tag="first")
        await group.level(FULL, VICTIM, LAGGING)
        await group.stop(LAGGING)
        await fill(group, ledger, dice, writes=40, through=FULL, tag="then")
        last = ("/last", b"the last write", "the last key")
        assert await group.put(FULL, *last[:2], ledger, last[2])
        await group.level(FULL, VICTIM)
        shutil.copytree(group.data_dir(VICTIM), folder / "images" / VICTIM)
        await group.stop(FULL, VICTIM)
        for name in (FULL, LAGGING):
            shutil.copytree(group.data_dir(name), folder / "images" / name)
    journal = [int(path.stem) for path in (folder / "images" / VICTIM / "journal").glob("*.segment")]
    assert min(journal) > 1, "the log has been cut"
    assert len(journal) > 2, "there are several segments"
    return Image(folder / "images", ledger, last, port)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    print(f"RAFTFS_TEST_SEED={SEED}")
    return asyncio.run(make_image(tmp_path_factory.mktemp("damage")))


@dataclass
class Verdicts:
    """What became of each damage. ``wrong``: promises that were broken."""

    told: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, damage: object, said: str | None, data_dir: Path) -> None:
        """``said``: why the node refused; None if it came back."""
        self.told["came back" if said is None else "refused"] += 1
        if said is not None and str(data_dir) not in said:
            self.wrong.append(f"{damage}: refused without the name of a file: {said}")

    def __str__(self) -> str:
        return ", ".join(f"{number} {what}" for what, number in sorted(self.told.items()))


async def check_old(group: Nodes, ledger: Ledger) -> None:
    """Whatever the victim serves by itself, old as it may be, was once sent for that path."""
    for path in list(ledger.ever):
        found = await group.get(VICTIM, path, "stale")
        if found not in (404, 503, NOBODY, *ledger.ever[path]):
            raise AssertionError(f"stale {path}: {_short(found)}")


async def check_current(group: Nodes, ledger: Ledger, *through: str) -> None:
    for name in through:
        for path in list(ledger.acknowledged):
            for consistency in ("linearizable", "stale"):
                found = await group.get(name, path, consistency)
                if found not in ledger.possible(path):
                    raise AssertionError(f"{name}, {consistency} {path}: {_short(found)}")


def _short(found: bytes | int) -> str:
    return repr(found if isinstance(found, int) else found[:30])


async def check_key(group: Nodes, image: Image) -> None:
    """The outcome under an idempotency key is still known."""
    path, data, key = image.last
    url = f"{group.urls[VICTIM]}/v1/files{path}?parents=true"
    async with group.http.put(url, data=data, headers={"Idempotency-Key": key}) as answer:
        assert names.REPLAYED in answer.headers, f"the key is forgotten: {answer.status} {await answer.text()}"


async def in_quorum(image: Image, group: Nodes, damage: Damage | None) -> str | None:
    """The damaged node and the lagging one, without the third. Why the node refused, or None."""
    await group.stop(VICTIM, LAGGING)
    restore(image.folder, group, VICTIM, LAGGING)
    if damage is not None:
        damage.inflict(group.data_dir(VICTIM))
    ledger = image.ledger.copy()
    try:
        await group.start(VICTIM)
        await check_old(group, ledger)
        await group.start(LAGGING)
        await group.level(VICTIM, LAGGING)
    except Refused as refused:
        return str(refused)
    assert await group.put(LAGGING, "/new", b"new", ledger, "new")
    await check_current(group, ledger, VICTIM, LAGGING)
    await check_key(group, image)
    return None


async def judge_in_quorum(image: Image, folder: Path, damages: list[Damage], node: type[Node] = Node) -> Verdicts:
    verdicts = Verdicts()
    async with nodes(folder, image.port, node) as group:
        for damage in damages:
            try:
                verdicts.note(damage, await in_quorum(image, group, damage), group.data_dir(VICTIM))
            except AssertionError as error:
                verdicts.wrong.append(f"{damage}: {error}")
    print(f"in the quorum: {verdicts}")
    return verdicts


@asynccontextmanager
async def writing(group: Nodes, ledger: Ledger) -> AsyncIterator[asyncio.Event]:
    """Writes go on while the event is set."""
    going, dice = asyncio.Event(), random.Random(SEED)

    async def write() -> None:
        for number in range(1_000_000):
            await going.wait()
            path = f"/d{number % 5}/f{dice.randrange(40)}"
            data = f"beside {number} ".encode() + dice.randbytes(dice.choice((10, 1000)))
            await group.put(FULL, path, data, ledger, f"beside-{number}")
            await asyncio.sleep(0.03)

    task = asyncio.create_task(write())
    try:
        yield going
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def beside(image: Image, group: Nodes, damage: Damage, ledger: Ledger, going: asyncio.Event) -> str | None:
    """The damaged node comes back to two that run and take writes. Why it refused, or None."""
    await group.stop(VICTIM)
    restore(image.folder, group, VICTIM)
    damage.inflict(group.data_dir(VICTIM))
    going.set()
    try:
        await group.start(VICTIM)
        await check_old(group, ledger)
        going.clear()
        await asyncio.sleep(0.05)
        await group.level(FULL, VICTIM, LAGGING)
    except Refused as refused:
        return str(refused)
    finally:
        going.clear()
    await check_current(group, ledger, VICTIM)
    return None


async def judge_beside(image: Image, folder: Path, damages: list[Damage]) -> Verdicts:
    verdicts, ledger = Verdicts(), image.ledger.copy()
    async with nodes(folder, image.port) as group:
        restore(image.folder, group, FULL, LAGGING)
        for name in (FULL, LAGGING):
            await group.start(name)
        await group.level(FULL, LAGGING)
        async with writing(group, ledger) as going:
            for damage in damages:
                try:
                    verdicts.note(damage, await beside(image, group, damage, ledger, going), group.data_dir(VICTIM))
                except AssertionError as error:
                    verdicts.wrong.append(f"{damage}: {error}")
        await group.stop(VICTIM)
        await check_current(group, ledger, FULL, LAGGING)
    print(f"beside two others: {verdicts}")
    return verdicts


async def test_undamaged_it_comes_back(image: Image, tmp_path: Path) -> None:
    async with nodes(tmp_path, image.port) as group:
        assert await in_quorum(image, group, None) is None


@pytest.mark.timeout(36_000)
async def test_in_the_quorum(image: Image, tmp_path: Path) -> None:
    verdicts = await judge_in_quorum(image, tmp_path, image.damages(ASKED, random.Random(SEED)))
    assert not verdicts.wrong
    assert min(verdicts.told["refused"], verdicts.told["came back"]) > 0


@pytest.mark.timeout(36_000)
async def test_beside_two_others_while_writes_go_on(image: Image, tmp_path: Path) -> None:
    verdicts = await judge_beside(image, tmp_path, image.damages(ASKED, random.Random(SEED + 1)))
    assert not verdicts.wrong
    assert min(verdicts.told["refused"], verdicts.told["came back"]) > 0


async def test_both_votes_are_refused(image: Image, tmp_path: Path) -> None:
    async with nodes(tmp_path, image.port) as group:
        restore(image.folder, group, VICTIM)
        spoil_both_votes(group.data_dir(VICTIM))
        with pytest.raises(Refused, match=r"journal/term: both copies"):
            await group.start(VICTIM)


class TrustingNode(Node):
    """A node that takes its database as it finds it."""

    async def _begin(self) -> None:
        path = self.config.data_dir / "state.db"
        hidden = path.rename(path.with_suffix(".hidden"))
        pages.PageSums(path).begin()  # as if nothing had been copied into it yet
        hidden.rename(path)
        await super()._begin()


async def test_the_judge_notices_a_node_that_does_not_look(image: Image, tmp_path: Path) -> None:
    found = [d for d in all_damages(image.folder / VICTIM, step=STEP) if d.file == "state.db" and d.kind == "flip"]
    damages = random.Random(SEED).sample([d for d in found if d.part == "overflow or free: middle"], 12)
    verdicts = await judge_in_quorum(image, tmp_path, damages, TrustingNode)
    assert verdicts.wrong, "wrong bytes were not noticed"
    print("\n".join(verdicts.wrong))
