"""Random schedules over plain PySyncObj, over ours, and over ours with a rule left out.

A failure names its seed. More seeds: ``RAFTFS_SCHEDULES=1000-3000 pytest tests/consensus/test_random_schedules.py``.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raftfs.consensus.guard import SafetyViolation
from raftfs.errors import CorruptData
from raftfs.testing.invariants import Violation
from raftfs.testing.simulation.planted import AcksBeforeDurable, CutsWhatMatches

from .guarded_cluster import GuardedCluster
from .plain_cluster import PlainCluster, virtual_engine
from .schedules import Schedule

STEPS = 1500
PLAIN_SEEDS = range(24)
BATCH = 30


def _batches(first: int, stop: int) -> list[range]:
    return [range(start, min(start + BATCH, stop)) for start in range(first, stop, BATCH)]


def ours(seeds: int) -> list[range]:
    first, _, stop = os.environ.get("RAFTFS_SCHEDULES", f"0-{seeds}").partition("-")
    return _batches(int(first), int(stop))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """PySyncObj logs what we make it do."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@contextmanager
def memory_directory() -> Iterator[Path]:
    """A directory whose fsync costs nothing, where the system has one: power losses are simulated here."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        yield Path(directory)


def run_plain(seed: int, **configuration: Any) -> None:
    with virtual_engine(seed) as clock:
        cluster = PlainCluster(
            "abc", clock, appendEntriesUseBatch=False, appendEntriesBatchSizeBytes=200, **configuration
        )  # fmt: skip
        try:
            Schedule(cluster, seed, power=True).run(STEPS)
        finally:
            cluster.close()


def run_ours(seed: int, names: str = "abc", **options: Any) -> int:
    """Returns how many proposals were acknowledged."""
    with virtual_engine(seed) as clock, memory_directory() as directory:
        cluster = GuardedCluster(
            names, clock, directory, lazy_disk=True, segment_bytes=4096, tail_bytes_max=1024, **options
        )  # fmt: skip
        try:
            schedule = Schedule(cluster, seed, power=True)
            schedule.run(STEPS)
            return len(schedule.answered_at)
        finally:
            cluster.close()


def test_plain_pysyncobj_breaks_its_promises_in_many_schedules() -> None:
    """So the schedules are hard enough, and the checker sees what is wrong."""
    broken = {}
    for seed in PLAIN_SEEDS:
        try:
            run_plain(seed)
        except Violation as violation:
            if violation.rule != "liveness":  # it also leaves proposals without an answer; that is another test
                broken[seed] = violation.rule
    assert len(broken) >= len(PLAIN_SEEDS) / 8, broken


@pytest.mark.parametrize("seeds", ours(300), ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_raftfs_keeps_its_promises_in_every_schedule(seeds: range) -> None:
    acknowledged = 0
    for seed in seeds:
        try:
            acknowledged += run_ours(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    assert acknowledged > 10 * len(seeds)  # the schedules leave room for work to be done


@pytest.mark.parametrize("seeds", [range(10_000, 10_040)], ids=lambda seeds: f"seeds {seeds.start} to {seeds.stop - 1}")
def test_five_nodes_of_raftfs_keep_their_promises_in_every_schedule(seeds: range) -> None:
    for seed in seeds:
        try:
            run_ours(seed, "abcde")
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_a_read_index_is_not_taken_from_an_answer_to_the_last_life_of_a_node() -> None:
    run_ours(1268)


@pytest.mark.parametrize(
    "options",
    [{"guard": AcksBeforeDurable}, {"guard": CutsWhatMatches}, {"apply_what_is_not_durable": True}],
    ids=["acknowledgements before durability", "removal of what matches", "application before durability"],
)
def test_a_rule_that_is_left_out_is_missed(options: dict[str, Any]) -> None:
    for seed in range(400):
        try:
            run_ours(seed, **options)
        except (Violation, SafetyViolation, CorruptData) as error:
            if not (isinstance(error, Violation) and error.rule == "liveness"):
                return
    pytest.fail("no schedule needed the rule")
