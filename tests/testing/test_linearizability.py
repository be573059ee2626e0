"""The checker, given histories that are right and histories that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftfs.testing import filemodel
from raftfs.testing import history as h
from raftfs.testing.history import NEVER, Call, Operation
from raftfs.testing.linearizability import Undecided, check, revision_faults, search

from . import histories

A, B = "/d/a", "/d/b"


def op(call: Call, result: str | None, begin: float, end: float) -> Operation:
    return Operation(call, result, begin, end)


def wrote(value: str, begin: float, end: float, result: str = h.REPLACED, path: str = A) -> Operation:
    return op(h.Write(path, value), None if end == NEVER else result, begin, end)


def read(value: str, begin: float, end: float, path: str = A) -> Operation:
    return op(h.Read(path), value, begin, end)


FIRST = wrote("a", 0, 1, h.CREATED)

GOOD = {
    "nothing": [],
    "write, read": [FIRST, read("a", 2, 3)],
    "read beside a write, before it": [wrote("a", 0, 5, h.CREATED), read(h.MISSING, 1, 2), read("a", 3, 4)],
    "writes in either order": [FIRST, wrote("b", 2, 9), wrote("c", 3, 9), read("c", 4, 5), read("b", 6, 7)],
    "unknown, later": [wrote("a", 0, NEVER), read(h.MISSING, 1, 2), read("a", 8, 9)],
    "unknown, never": [FIRST, wrote("b", 2, NEVER), read("a", 8, 9), wrote("c", 10, 11), read("c", 12, 13)],
    "unknown, after another": [FIRST, wrote("b", 2, NEVER), wrote("c", 3, 4), read("c", 5, 6), read("b", 7, 8)],
    "swap": [FIRST, op(h.Swap(A, "a", "b"), h.REPLACED, 2, 3), read("b", 4, 5)],
    "one of two swaps": [
        FIRST,
        op(h.Swap(A, "a", "b"), h.REPLACED, 2, 9),
        op(h.Swap(A, "a", "c"), h.MISMATCH, 2, 9),
        read("b", 10, 11),
    ],
    "swap refused for an unknown one": [
        FIRST,
        op(h.Swap(A, "a", "b"), None, 2, NEVER),
        op(h.Swap(A, "a", "c"), h.MISMATCH, 3, 4),
    ],
    "rename": [FIRST, op(h.Rename(A, B), h.MOVED, 2, 3), read(h.MISSING, 4, 5), read("a", 4, 5, B)],
    "list beside a rename": [
        FIRST,
        op(h.Rename(A, B), h.MOVED, 2, 9),
        op(h.Names("/d"), h.listing([(A, "a")]), 3, 4),
        op(h.Names("/d"), h.listing([(B, "a")]), 5, 6),
    ],
    "unknown rename, seen": [FIRST, op(h.Rename(A, B), None, 2, NEVER), read("a", 3, 4), read("a", 5, 6, B)],
    "transaction": [
        FIRST,
        op(h.Transaction(((A, "a"),), (h.Delete(A), h.Write(B, "b"))), h.DONE, 2, 5),
        op(h.Names("/d"), h.listing([(A, "a")]), 3, 4),
        op(h.Names("/d"), h.listing([(B, "b")]), 6, 7),
    ],
    "transaction that swaps what an unknown one wrote": [
        wrote("a", 0, NEVER),
        op(h.Transaction((), (h.Swap(A, "a", "b"),)), h.DONE, 2, 3),
        read("b", 4, 5),
    ],
    "unknown transaction, seen": [
        FIRST,
        op(h.Transaction(((A, "a"),), (h.Delete(A), h.Write(B, "b"))), None, 2, NEVER),
        op(h.Names("/d"), h.listing([(A, "a")]), 3, 4),
        op(h.Names("/d"), h.listing([(B, "b")]), 6, 7),
    ],
}

BAD = {
    "bytes that nobody wrote": [read("a", 0, 1)],
    "lost": [FIRST, read(h.MISSING, 2, 3)],
    "stale": [FIRST, wrote("b", 2, 3), read("a", 4, 5)],
    "seen, then unseen": [wrote("a", 0, 9, h.CREATED), read("a", 1, 2), read(h.MISSING, 3, 4)],
    "unknown, seen, then unseen": [wrote("a", 0, NEVER), read("a", 1, 2), read(h.MISSING, 3, 4)],
    "seen before it was written": [wrote("a", 2, 3, h.CREATED), read("a", 0, 1)],
    "effect twice": [FIRST, wrote("b", 2, 3), read("b", 4, 5), read("a", 6, 7)],
    "unknown, effect twice": [
        FIRST,
        wrote("b", 2, NEVER),
        read("b", 3, 4),
        wrote("c", 5, 6),
        read("c", 7, 8),
        read("b", 9, 10),
    ],
    "resurrected": [FIRST, op(h.Delete(A), h.DELETED, 2, 3), read("a", 4, 5)],
    "created twice": [FIRST, op(h.Create(A, "b"), h.CREATED, 2, 3)],
    "two creators win": [op(h.Create(A, "b"), h.CREATED, 2, 9), op(h.Create(A, "c"), h.CREATED, 2, 9)],
    "created, says the second": [FIRST, wrote("b", 2, 3, h.CREATED)],
    "both swaps win": [
        FIRST,
        op(h.Swap(A, "a", "b"), h.REPLACED, 2, 9),
        op(h.Swap(A, "a", "c"), h.REPLACED, 2, 9),
    ],
    "swap refused for nothing": [FIRST, op(h.Swap(A, "a", "c"), h.MISMATCH, 3, 4)],
    "rename in halves": [
        FIRST,
        op(h.Rename(A, B), h.MOVED, 2, 9),
        op(h.Names("/d"), h.listing([(A, "a"), (B, "a")]), 3, 4),
    ],
    "neither here nor there": [FIRST, op(h.Rename(A, B), h.MOVED, 2, 9), op(h.Names("/d"), h.listing([]), 3, 4)],
    "rename twice": [
        FIRST,
        op(h.Rename(A, B), h.MOVED, 2, 3),
        wrote("c", 4, 5, h.CREATED),
        read("c", 6, 7, B),
    ],
    "transaction in halves": [
        FIRST,
        op(h.Transaction(((A, "a"),), (h.Delete(A), h.Write(B, "b"))), h.DONE, 2, 5),
        op(h.Names("/d"), h.listing([(A, "a"), (B, "b")]), 3, 4),
    ],
    "transaction done on another state": [
        FIRST,
        op(h.Transaction(((A, "b"),), (h.Write(B, "b"),)), h.DONE, 2, 3),
    ],
    "transaction refused, and seen": [
        FIRST,
        op(h.Transaction(((A, None),), (h.Write(B, "b"),)), h.MISMATCH, 2, 3),
        read("b", 4, 5, B),
    ],
    "unknown transaction, seen, then unseen": [
        FIRST,
        op(h.Transaction(((A, "a"),), (h.Delete(A), h.Write(B, "b"))), None, 2, NEVER),
        read("b", 3, 4, B),
        read("a", 5, 6),
    ],
    "unknown rename, seen, then undone": [
        FIRST,
        op(h.Rename(A, B), None, 2, NEVER),
        read("a", 3, 4, B),
        read("a", 5, 6),
    ],
    "unknown swap of what was never there": [
        FIRST,
        op(h.Swap(A, "x", "b"), None, 2, NEVER),
        read("b", 3, 4),
    ],
    "order of two clients turned round": [
        FIRST,
        wrote("b", 2, 9),
        wrote("c", 2, 9),
        read("b", 3, 4),
        read("c", 5, 6),
        read("b", 7, 8),
    ],
    "a list that goes back": [
        FIRST,
        wrote("b", 2, 9, h.CREATED, B),
        op(h.Names("/d"), h.listing([(A, "a"), (B, "b")]), 3, 4),
        op(h.Names("/d"), h.listing([(A, "a")]), 5, 6),
    ],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_what_an_order_explains_is_accepted(history: list[Operation]) -> None:
    assert check(history).linearizable, str(check(history).violations[0])
    assert histories.explained_slowly(history)


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_what_no_order_explains_is_rejected(history: list[Operation]) -> None:
    verdict = check(history)
    assert verdict.violations
    assert not histories.explained_slowly(history)
    assert "no order explains" in str(verdict.violations[0])


@pytest.mark.parametrize("seed", range(25))
def test_a_stretched_sequential_run_is_accepted(seed: int) -> None:
    history = histories.made_up(seed, operations=300)
    assert check(history).linearizable


@pytest.mark.parametrize("seed", range(25))
def test_a_stale_read_among_many_operations_is_rejected(seed: int) -> None:
    history = histories.made_up(seed, operations=300, registers=True)
    assert check(history).linearizable
    stale = histories.with_stale_read(history, seed)
    assert stale is not None
    assert check(stale).violations


TAILS: dict[str, list[tuple[Call, str]]] = {
    "stale read": [(h.Write("/d/t", "t1"), h.CREATED), (h.Write("/d/t", "t2"), h.REPLACED), (h.Read("/d/t"), "t1")],
    "lost update": [
        (h.Create("/d/t", "t1"), h.CREATED),
        (h.Swap("/d/t", "t1", "t2"), h.REPLACED),
        (h.Swap("/d/t", "t1", "t3"), h.REPLACED),
    ],
    "duplicated effect": [
        (h.Create("/d/t", "t1"), h.CREATED),
        (h.Rename("/d/t", "/d/u"), h.MOVED),
        (h.Create("/d/t", "t2"), h.CREATED),
        (h.Read("/d/u"), "t2"),
    ],
    "resurrected delete": [
        (h.Create("/d/t", "t1"), h.CREATED),
        (h.Delete("/d/t"), h.DELETED),
        (h.Create("/d/t", "t2"), h.EXISTS),
    ],
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_fault_after_many_operations_is_rejected(tail: list[tuple[Call, str]], seed: int) -> None:
    history = histories.made_up(seed, operations=150)
    assert check(histories.with_tail(history, tail[0])).linearizable
    assert check(histories.with_tail(history, *tail)).violations


@pytest.mark.parametrize("seed", range(40))
def test_verdicts_are_those_of_trying_every_order(seed: int) -> None:
    for number in range(10):
        history = histories.muddled(seed * 1000 + number, operations=6)
        assert check(history).linearizable == histories.explained_slowly(history), "\n".join(map(str, history))


def test_the_muddled_histories_are_of_both_kinds() -> None:
    verdicts = [check(histories.muddled(seed, operations=6)).linearizable for seed in range(400)]
    assert 50 < sum(verdicts) < 350


def test_paths_that_have_nothing_to_do_with_each_other_are_judged_apart() -> None:
    history = [FIRST, wrote("b", 0, 1, h.CREATED, "/e/x"), wrote("c", 0, 1, h.CREATED, "/e/y")]
    assert check(history).parts == 3
    assert check([*history, op(h.Names("/e"), h.listing([("/e/x", "b"), ("/e/y", "c")]), 2, 3)]).parts == 2
    assert check([*history, op(h.Rename(A, "/e/x", replace=True), h.MOVED, 2, 3)]).parts == 2


def test_many_unknown_writes_do_not_hide_a_fault_nor_take_for_ever() -> None:
    lost = [wrote(f"u{number}", number, NEVER) for number in range(200)]
    good = [*lost, wrote("a", 300, 301), read("u7", 302, 303), read("u150", 304, 305)]
    assert check(good).linearizable
    assert check([*good, read("u7", 306, 307)]).violations


def test_a_search_that_is_too_long_is_given_up_and_not_called_right() -> None:
    names = [f"/d/{number}" for number in range(12)]
    beside = [wrote(f"v{number}", 0, 1, h.CREATED, path) for number, path in enumerate(names)]
    history = [*beside, op(h.Names("/d"), "/d/0=nobody", 0, 1)]
    with pytest.raises(Undecided):
        search(history, filemodel.step, filemodel.EMPTY, configurations_max=100)
    verdict = check(history, configurations_max=100)
    assert verdict.undecided == 1
    assert not verdict.linearizable


def test_a_history_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    history = sorted(histories.made_up(1, operations=100), key=lambda one: one.begin)
    h.save(history, tmp_path / "history")
    assert h.load(tmp_path / "history") == history


def _at(revision: int, call: Call, result: str, begin: float, end: float) -> Operation:
    return Operation(call, result, begin, end, revision=revision)


def test_revisions_on_answers_do_not_go_back() -> None:
    change = _at(5, h.Write(A, "a"), h.CREATED, 0, 1)
    assert not revision_faults([change, _at(5, h.Read(B), h.MISSING, 2, 3), _at(6, h.Write(B, "b"), h.CREATED, 2, 3)])
    assert not revision_faults([change, _at(4, h.Read(B), h.MISSING, 0.5, 3)])  # beside the change
    assert revision_faults([change, _at(4, h.Read(B), h.MISSING, 2, 3)])
    assert revision_faults([change, _at(5, h.Write(B, "b"), h.CREATED, 2, 3)])
    assert revision_faults([change, _at(5, h.Write(B, "b"), h.CREATED, 0, 1)])
