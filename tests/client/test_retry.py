"""The rules of retrying, without a network."""

from __future__ import annotations

import random

import pytest

from raftfs import errors, limits
from raftfs.client.retry import Budget, Failure, Retries


def retries(*, mutation: bool = True, endpoints: int = 1) -> Retries:
    return Retries(mutation=mutation, endpoints=endpoints, rng=random.Random(1))


def failure(error: errors.RaftfsError | None = None, *, retry: bool = True, maybe_applied: bool = False) -> Failure:
    return Failure(error or errors.Unavailable("down"), retry, maybe_applied)


def test_every_endpoint_has_its_turn_before_the_first_wait() -> None:
    state = retries(endpoints=3)
    delays = []
    for _ in range(6):
        state.failed(failure())
        delays.append(state.delay_s())
    assert delays[0] == delays[1] == delays[3] == delays[4] == 0.0
    assert delays[2] > 0.0
    assert delays[5] > 0.0


def test_waits_grow_to_their_limit() -> None:
    state = retries()
    delays = []
    for _ in range(40):
        state.failed(failure())
        delays.append(state.delay_s())
    assert delays[0] <= limits.CLIENT_RETRY_DELAY_S_MIN
    assert all(0 < delay <= limits.CLIENT_RETRY_DELAY_S_MAX for delay in delays)
    assert delays[-1] >= limits.CLIENT_RETRY_DELAY_S_MAX / 2


def test_the_longest_retry_after_of_a_round_counts() -> None:
    state = retries(endpoints=2)
    state.failed(failure(errors.Unavailable("a", retry_after_s=7.0)))
    assert state.delay_s() == 0.0
    state.failed(failure(errors.Unavailable("b", retry_after_s=1.0)))
    assert state.delay_s() == 7.0
    state.failed(failure())
    state.failed(failure())
    assert state.delay_s() < 7.0


@pytest.mark.parametrize("error", [errors.Unavailable("x"), errors.DeadlineExceeded("x"), errors.UnknownOutcome("x")])
def test_one_doubtful_attempt_makes_the_outcome_of_a_write_unknown(error: errors.RaftfsError) -> None:
    state = retries()
    state.failed(failure(errors.DeadlineExceeded("lost"), maybe_applied=True))
    last = failure(error)
    state.failed(last)
    verdict = state.verdict(last)
    assert isinstance(verdict, errors.UnknownOutcome)
    assert verdict.outcome == "unknown"


def test_a_write_that_never_arrived_was_not_applied() -> None:
    state = retries()
    last = failure()
    state.failed(last)
    assert state.verdict(last) is last.error
    assert last.error.outcome == "not_applied"


def test_a_definite_answer_stands_after_a_doubtful_attempt() -> None:
    state = retries()
    state.failed(failure(errors.DeadlineExceeded("lost"), maybe_applied=True))
    last = failure(errors.PreconditionFailed("no", outcome="not_applied"), retry=False)
    state.failed(last)
    assert state.verdict(last) is last.error


def test_a_server_that_cannot_says_nothing_about_an_earlier_attempt() -> None:
    state = retries()
    state.failed(failure(errors.DeadlineExceeded("lost"), maybe_applied=True))
    last = failure(errors.StorageFull("full", outcome="not_applied"), retry=False)
    state.failed(last)
    verdict = state.verdict(last)
    assert isinstance(verdict, errors.UnknownOutcome)
    assert "full" in verdict.detail


def test_a_write_that_is_done_but_not_everywhere_is_said_to_be_done() -> None:
    state = retries()
    last = failure(errors.Unavailable("n3 did not confirm", outcome="applied"), maybe_applied=True)
    state.failed(last)
    assert state.verdict(last) is last.error


def test_reads_have_no_outcome() -> None:
    state = retries(mutation=False)
    last = failure(maybe_applied=True)
    state.failed(last)
    assert state.verdict(last) is last.error
    assert last.error.outcome is None


def test_a_fixed_budget_does_not_move_and_a_transfer_lives_while_it_moves() -> None:
    fixed = Budget(total_s=5, idle_s=30, now_s=100)
    fixed.moved(104)
    assert fixed.left_s(104) == 1
    moving = Budget(total_s=None, idle_s=30, now_s=100)
    assert moving.left_s(100) == 30
    moving.moved(120)
    assert moving.left_s(120) == 30
    assert moving.left_s(151) < 0


def test_a_transfer_that_moves_the_same_bytes_again_and_again_ends() -> None:
    state = retries()
    for step in (5, 0, 5, 7):
        state.failed(Failure(errors.Unavailable("x"), True, False, step))
    for _ in range(limits.CLIENT_RESUMES_WITHOUT_PROGRESS_MAX):
        assert not state.exhausted
        state.failed(Failure(errors.Unavailable("x"), True, False, 7))
    assert state.exhausted
