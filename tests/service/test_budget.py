"""Budgets: never over the limit, first come first served, and nothing lost to cancellation."""

from __future__ import annotations

import asyncio
import random

import pytest

from raftfs.service.workers import Budget


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    budget, order = Budget(10), []

    async def take(name: str, amount: int) -> None:
        await budget.acquire(amount)
        order.append(name)

    await budget.acquire(8)
    tasks = [asyncio.create_task(take(name, amount)) for name, amount in (("big", 9), ("small", 1), ("huge", 99))]
    await turns()
    assert not budget.try_acquire(1)  # there is room, but others wait
    assert order == []
    budget.release(8)
    await turns()
    assert order == ["big", "small"]
    budget.release(9)
    budget.release(1)
    await turns()
    assert (order, budget.used) == (["big", "small", "huge"], 10)
    budget.release(99)
    assert budget.used == 0
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("when", ["waiting", "granted", "cancelled and then released"])
async def test_cancellation_gives_back(when: str) -> None:
    budget = Budget(10)
    await budget.acquire(10)
    first = asyncio.create_task(budget.acquire(5))
    second = asyncio.create_task(budget.acquire(10))
    await turns()
    if when == "granted":
        budget.release(10)
        first.cancel()
    elif when == "waiting":
        first.cancel()
        await turns()
        budget.release(10)
    else:
        first.cancel()
        budget.release(10)
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert budget.used == 10
    budget.release(10)
    assert budget.used == 0


async def test_any_schedule_keeps_the_limit() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    budget = Budget(10)

    async def work(amount: int, steps: int) -> None:
        async with budget.take(amount):
            assert budget.used <= 10
            await turns(steps)

    tasks = [asyncio.create_task(work(rng.randrange(1, 15), rng.randrange(4))) for _ in range(300)]
    for _ in range(len(tasks)):
        await turns(rng.randrange(3))
        if rng.random() < 0.3:
            rng.choice(tasks).cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert ended is None or isinstance(ended, asyncio.CancelledError)
    assert (budget.used, budget.try_acquire(10)) == (0, True)
    assert budget.most <= 10
