"""The same targets, with hypothesis making the inputs: what it finds it also shortens.

An input is one of the corpus, changed in a few places, or a few bytes that resemble nothing.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .mutate import corpus
from .targets import TARGETS
from .test_fuzz import BROKEN

EXAMPLES = int(os.environ.get("RAFTFS_TEST_FUZZ_EXAMPLES", "300")) // 3
SLOW = {"messages": 5, "commands": 2, "journal": 2, "greetings": 4}

_place = st.integers(0, 2**13)
_absurd = st.sampled_from([n for bits in (7, 8, 15, 16, 31, 32, 62, 63, 64) for n in (2**bits - 1, 2 ** (bits - 1))])
_change = st.one_of(
    st.tuples(st.just("put"), _place, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("over"), _place, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("number"), _place, st.tuples(_absurd, st.sampled_from([1, 2, 4, 8]), st.booleans())),
    st.tuples(st.just("cut"), _place, st.integers(1, 1024)),
    st.tuples(st.just("again"), _place, st.integers(1, 64)),
)


def changed(data: bytes, changes: list[tuple[str, int, Any]]) -> bytes:
    """``data`` with each change made at its place, counted from the beginning or, past the end, around again."""
    found = bytearray(data)
    for kind, place, what in changes:
        at = place % (len(found) + 1)
        if kind == "put":
            found[at:at] = what
        elif kind == "over":
            found[at : at + len(what)] = what
        elif kind == "number":
            number, size, big = what
            found[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "big" if big else "little")
        elif kind == "cut":
            del found[at : at + what]
        else:
            found[at:at] = found[at : at + what]
    return bytes(found)


def inputs(target: str) -> st.SearchStrategy[bytes]:
    return st.builds(changed, st.sampled_from(corpus(target)), st.lists(_change, max_size=6)) | st.binary(max_size=80)


def search(name: str, target: Any, examples: int) -> None:
    """Raises what the target's oracle does, for the shortest input that hypothesis finds."""
    with target() as check:

        @settings(
            max_examples=examples, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(inputs(name))
        def holds(data: bytes) -> None:
            check(data)

        holds()


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_what_a_parser_promises(name: str) -> None:
    search(name, TARGETS[name], max(10, EXAMPLES // SLOW.get(name, 1)))


@pytest.mark.parametrize("name", ["frames", "greetings", "journal", "term", "commands"])
@pytest.mark.filterwarnings("ignore")  # what is broken leaves things behind
def test_a_broken_parser_is_found(name: str) -> None:
    with pytest.raises(Exception):  # noqa: B017 - each oracle has its own
        search(name, BROKEN[name], 3000)
