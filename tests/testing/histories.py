"""Histories that are right because of how they are made, and the same ones with a fault planted."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

import msgspec

from raftfs.testing import filemodel
from raftfs.testing import history as h

_CAN_BE_LOST = h.Write | h.Delete | h.Swap | h.Rename | h.Transaction
"""The calls of which some have an unknown outcome."""


def made_up(seed: int, *, operations: int, directory: str = "/d", registers: bool = False) -> list[h.Operation]:
    """A run of one call after the other, stretched: the call at moment t begins before t and ends after it, so that
    they overlap, and t is a moment that explains it. Some outcomes are unknown, some unknown calls never happened."""
    dice = random.Random(seed)
    state, history = filemodel.EMPTY, []
    for number in range(operations):
        call = _call(dice, number, directory, state, registers)
        moment = float(number)
        begin, end = moment - dice.expovariate(0.7), moment + dice.expovariate(0.7)
        if isinstance(call, _CAN_BE_LOST) and dice.random() < 0.03:
            if dice.random() < 0.5:
                state = filemodel.step(state, call)[0]
            history.append(h.Operation(call, None, begin, h.NEVER, "lost"))
            continue
        state, result = filemodel.step(state, call)
        history.append(h.Operation(call, result, begin, end, f"c{number % 7}"))
    return history


def _call(dice: random.Random, number: int, directory: str, state: filemodel.State, registers: bool) -> h.Call:
    path, other = (f"{directory}/{name}" for name in dice.choices("abc", k=2))
    value = f"v{number}"
    held = dict(state).get(path, "v-none")
    choices: list[h.Call] = [
        h.Read(path),
        h.Read(path),
        h.Write(path, value),
        h.Create(path, value),
        h.Swap(path, dice.choice([held, "v-other"]), value),
        h.Delete(path),
    ]
    if not registers:
        choices += [
            h.Names(directory),
            h.Rename(path, other, replace=dice.random() < 0.5),
            h.Transaction(((path, dice.choice([held, None])),), (h.Write(other, value), h.Delete(path))),
            h.Transaction(
                (), (h.Swap(path, dice.choice([held, "v-other"]), value), h.Rename(path, other, replace=True))
            ),
        ]
    return dice.choice(choices)


def with_tail(history: Sequence[h.Operation], *tail: tuple[h.Call, str]) -> list[h.Operation]:
    """Calls one after the other, after all else has ended."""
    now = max((one.end for one in history if one.known), default=0.0) + 1
    return [*history, *(h.Operation(call, told, now + n, now + n + 0.5, "tail") for n, (call, told) in enumerate(tail))]


def with_stale_read(history: Sequence[h.Operation], seed: int) -> list[h.Operation] | None:
    """Some read sees a value that another write had replaced, for certain, before it began; None if there is no place
    for that. Only for histories without renames, where nothing brings a value back."""
    found = list(_stale_places(history))
    if not found:
        return None
    number, value = random.Random(seed).choice(found)
    return [msgspec.structs.replace(one, result=value) if n == number else one for n, one in enumerate(history)]


def _stale_places(history: Sequence[h.Operation]) -> Iterator[tuple[int, str]]:
    writes = [one for one in history if isinstance(one.call, h.Write) and one.known]
    for number, read in enumerate(history):
        if not isinstance(read.call, h.Read) or not read.known:
            continue
        for old in writes:
            for new in writes:
                same = old.call.path == new.call.path == read.call.path
                if same and old.end < new.begin and new.end < read.begin:
                    yield number, old.call.value


def explained_slowly(history: Sequence[h.Operation]) -> bool:
    """The definition, tried out: is there an order? Every order is tried, so only for a few operations."""

    def reach(state: filemodel.State, left: tuple[h.Operation, ...]) -> bool:
        if not any(one.known for one in left):
            return True
        first_end = min(one.end for one in left)
        for number, one in enumerate(left):
            if one.begin > first_end:
                continue
            after, told = filemodel.step(state, one.call)
            if one.result in (None, told) and reach(after, left[:number] + left[number + 1 :]):
                return True
        # An unknown one may just as well never happen.
        return any(
            not one.known and reach(state, left[:number] + left[number + 1 :]) for number, one in enumerate(left)
        )

    return reach(filemodel.EMPTY, tuple(history))


def muddled(seed: int, *, operations: int) -> list[h.Operation]:
    """A short history whose answers are partly guessed: right or wrong, nobody knows without looking."""
    dice = random.Random(seed)
    history = made_up(seed, operations=operations, directory="/d")
    answers = [one.result for one in history if one.result is not None]
    for number, one in enumerate(history):
        if one.known and dice.random() < 0.25:
            history[number] = msgspec.structs.replace(one, result=dice.choice(answers))
        elif one.known and dice.random() < 0.15:
            history[number] = msgspec.structs.replace(one, result=None, end=math.inf)
    return history
