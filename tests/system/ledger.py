"""What was written and what the cluster said about it, and the check that nothing acknowledged was lost.

Every attempt has bytes of its own, so the bytes that are read tell which attempt they come from.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from raftfs.limits import BUFFERED_BODY_BYTES_MAX

from .web import Answer, ask, fetch, sha256

Outcome = Literal["acknowledged", "refused", "unknown"]
Fetch = Callable[[str], str | None]
"""SHA-256 of what is at a path; None if nothing is."""

_PAUSE_S = 0.02
_SLOT_PATHS = 3


@dataclass(frozen=True)
class Attempt:
    sha256: str
    size: int
    outcome: Outcome
    detail: str


@dataclass
class Ledger:
    """Attempts to write, by path, in the order in which they were made; one writer at a time on each path."""

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    acknowledged: int = 0
    longest_pause_s: float = 0.0
    _last_s: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, url: str, path: str, data: bytes, *, chunked: bool = False) -> Outcome:
        """PUT, once, and note what came of it."""
        body = iter([data[at : at + 65536] for at in range(0, len(data), 65536)]) if chunked else data
        try:
            outcome, detail = classify(ask(url, "PUT", f"/v1/files{path}", body=body))
        except ConnectionRefusedError as error:
            outcome, detail = "refused", str(error)
        except (OSError, http.client.HTTPException) as error:
            outcome, detail = "unknown", repr(error)
        self.note(path, Attempt(sha256(data), len(data), outcome, detail))
        return outcome

    def note(self, path: str, attempt: Attempt) -> None:
        with self._lock:
            self.attempts.setdefault(path, []).append(attempt)
            if attempt.outcome == "acknowledged":
                self.acknowledged += 1
                now_s = time.monotonic()
                self.longest_pause_s = max(self.longest_pause_s, now_s - self._last_s)
                self._last_s = now_s

    def forget_pauses(self) -> None:
        """Measure the longest time between two acknowledgements anew, from the last one on."""
        with self._lock:
            self.longest_pause_s = 0.0

    def check(self, fetch_sha256: Fetch) -> list[str]:
        """Complaints about what is there now; empty if all is as it was promised.

        A path holds its last acknowledged bytes, or those of an attempt with unknown outcome (which may take effect
        late), or, if nothing was ever acknowledged, nothing. Bytes of no attempt, or of a refused one, are a fault.
        """
        complaints = []
        with self._lock:
            attempts = {path: list(made) for path, made in self.attempts.items()}
        for path, made in attempts.items():
            found = fetch_sha256(path)
            acknowledged = [attempt.sha256 for attempt in made if attempt.outcome == "acknowledged"]
            allowed: set[str | None] = {attempt.sha256 for attempt in made if attempt.outcome == "unknown"}
            allowed.add(acknowledged[-1] if acknowledged else None)
            if found in allowed:
                continue
            if found is None:
                complaints.append(f"{path}: lost, acknowledged {len(acknowledged)} times")
            elif found in acknowledged:
                complaints.append(f"{path}: an older acknowledged version")
            elif any(found == attempt.sha256 for attempt in made):
                complaints.append(f"{path}: the bytes of a write that was refused")
            else:
                complaints.append(f"{path}: bytes that nobody wrote, sha256 {found}")
        return complaints

    def noticed(self) -> list[str]:
        """Writes small enough to be repeated by the cluster itself, that nevertheless were not acknowledged."""
        return [
            f"{path}: {attempt}"
            for path, made in self.attempts.items()
            for attempt in made
            if attempt.outcome != "acknowledged" and attempt.size <= BUFFERED_BODY_BYTES_MAX
        ]

    def __str__(self) -> str:
        made = [attempt for attempts in self.attempts.values() for attempt in attempts]
        outcomes = Counter(attempt.outcome for attempt in made)
        total = sum(attempt.size for attempt in made if attempt.outcome == "acknowledged")
        others = [f"{one.detail} ({one.size} bytes)" for one in made if one.outcome != "acknowledged"]
        return f"{len(self.attempts)} paths, {dict(outcomes)}, {total / 1e6:.0f} MB acknowledged, others {others[:20]}"


def classify(answer: Answer) -> tuple[Outcome, str]:
    """What an answer to a write says of it. A 4xx is a mistake of the test; it raises AssertionError."""
    assert answer.status in (200, 201, 502, 503, 504, 507), str(answer)
    detail = f"{answer.status} {answer.code}"
    if answer.status in (200, 201):
        return "acknowledged", detail
    return ("refused" if answer.outcome == "not_applied" else "unknown"), detail


def fetcher(url: str, query: str = "") -> Fetch:
    """Reads through one server. An answer that is neither the file nor a 404 raises AssertionError."""

    def fetch_sha256(path: str) -> str | None:
        answer = fetch(url, path, query)
        if answer.status == 404:
            return None
        assert answer.status == 200, f"{path}: {answer}"
        return answer.sha256

    return fetch_sha256


class Writers:
    """Clients that write without pause while this is entered: small, medium and multi-chunk files, new paths and
    the same few paths again and again, with and without an announced length."""

    def __init__(self, ledger: Ledger, url: str, *, seed: int, clients: int = 6, large: bool = True) -> None:
        print(f"seed of the writers: {seed}")
        self._ledger, self._url, self._large = ledger, url, large
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(seed, n), daemon=True) for n in range(clients)]

    def _run(self, seed: int, number: int) -> None:
        dice = random.Random(f"{seed}/{number}")
        round_number = 0
        try:
            while not self._stop.is_set():
                round_number += 1
                name = f"slot{dice.randrange(_SLOT_PATHS)}" if dice.random() < 0.3 else f"file{round_number}"
                data = dice.randbytes(self._size(dice))
                path = f"/w{seed}-{number}-{name}"
                if self._ledger.write(self._url, path, data, chunked=dice.random() < 0.2) != "acknowledged":
                    time.sleep(_PAUSE_S)
        except BaseException as error:
            self._failed.append(error)

    def _size(self, dice: random.Random) -> int:
        kind = dice.random()
        if kind < 0.70:
            return dice.randrange(20_000)
        if kind < 0.95 or not self._large:
            return dice.randrange(33_000, 400_000)
        return dice.randrange(4_300_000, 9_000_000)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=120)
        if error is None:
            assert not self._failed, self._failed
            assert not any(thread.is_alive() for thread in self._threads), "a request hangs"
