"""When to try again, and until when. No clock, no randomness and no network in here: all of them are passed in."""

from __future__ import annotations

import random
from dataclasses import dataclass

from raftfs import limits
from raftfs.errors import BadAnswer, NotTrusted, RaftfsError, UnknownOutcome


class Budget:
    """The time a call has left.

    With ``total_s`` the end is fixed. Without it the call is a transfer: it may take as long as it moves, and ends
    ``idle_s`` after the last byte that did.
    """

    def __init__(self, *, total_s: float | None, idle_s: float, now_s: float) -> None:
        self.fixed = total_s is not None
        self._idle_s = idle_s
        self.end_s = now_s + (idle_s if total_s is None else total_s)

    def moved(self, now_s: float) -> None:
        """Bytes moved: a transfer's time starts anew."""
        if not self.fixed:
            self.end_s = max(self.end_s, now_s + self._idle_s)

    def left_s(self, now_s: float) -> float:
        return self.end_s - now_s


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt: ``error`` as the caller would see it, and what it means for the next attempt.

    ``maybe_applied``: the server may have carried the request out. ``retry``: another attempt may do better.
    ``sent_bytes``: how much of a large body was handed over.
    """

    error: RaftfsError
    retry: bool
    maybe_applied: bool
    sent_bytes: int = 0


class Retries:
    """The memory of one call over its attempts: how often, how long to wait, and what to say in the end."""

    def __init__(self, *, mutation: bool, endpoints: int, rng: random.Random) -> None:
        self._mutation = mutation
        self._endpoints = endpoints
        self._rng = rng
        self._failures = 0
        self._furthest_bytes = 0
        self._fruitless = 0
        self._retry_after_s = 0.0
        self._untrusted = 0
        self.maybe_applied = False

    def failed(self, failure: Failure) -> None:
        self._failures += 1
        if failure.sent_bytes > self._furthest_bytes:
            self._furthest_bytes, self._fruitless = failure.sent_bytes, 0
        elif failure.sent_bytes:
            self._fruitless += 1
        self._untrusted = self._untrusted + 1 if isinstance(failure.error, NotTrusted) else 0
        self.maybe_applied = self.maybe_applied or failure.maybe_applied
        self._retry_after_s = max(self._retry_after_s, failure.error.retry_after_s or 0.0)

    def delay_s(self) -> float:
        """Time to wait before the next attempt: none until every endpoint had its turn, then growing, with jitter."""
        rounds, step = divmod(self._failures, self._endpoints)
        if step:
            return 0.0
        longest = min(limits.CLIENT_RETRY_DELAY_S_MAX, limits.CLIENT_RETRY_DELAY_S_MIN * 2.0 ** min(rounds - 1, 16))
        delay_s = max(longest * self._rng.uniform(0.5, 1.0), self._retry_after_s)
        self._retry_after_s = 0.0
        return delay_s

    @property
    def exhausted(self) -> bool:
        """Whether to stop although time is left. A transfer has time while bytes move, so one that moves the same
        bytes again and again must end by count."""
        fruitless = self._fruitless >= limits.CLIENT_RESUMES_WITHOUT_PROGRESS_MAX
        # Certificates are wrong for long. A second round is for files that were renewed.
        untrusted = self._untrusted >= 2 * self._endpoints
        return fruitless or untrusted or self._failures >= limits.CLIENT_ATTEMPTS_MAX

    def verdict(self, failure: Failure) -> RaftfsError:
        """The error to raise now that no attempt is left.

        A definite answer stands: one about the request, which a server gives only after it has looked for its key.
        Otherwise a write that any attempt may have carried out has an unknown outcome, even if the last attempt was
        certainly not applied (a full disk, say): an earlier one may still be.
        """
        error = failure.error
        definite = not failure.retry and (error.status < 500 or not self.maybe_applied)
        if not self._mutation or definite or error.outcome == "applied" or isinstance(error, BadAnswer):
            return error  # a bad answer says of itself that the outcome is unknown
        if self.maybe_applied:
            if isinstance(error, UnknownOutcome):
                return error
            return UnknownOutcome(
                f"whether the write was applied is not known: {error.detail}", retry_after_s=error.retry_after_s
            )
        if error.outcome is None:
            error.outcome = "not_applied"
        return error
