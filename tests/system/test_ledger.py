"""The checks themselves, each shown what it must see."""

from __future__ import annotations

import pytest

from .clusters import running
from .ledger import Attempt, Ledger, Outcome, fetcher
from .web import ask, put, sha256


def _ledger(*attempts: tuple[str, Outcome]) -> Ledger:
    ledger = Ledger()
    for text, outcome in attempts:
        ledger.note("/f", Attempt(sha256(text.encode()), len(text), outcome, "planted"))
    return ledger


@pytest.mark.parametrize(
    ("attempts", "found"),
    [
        ([("a", "acknowledged")], "a"),
        ([("a", "acknowledged"), ("b", "acknowledged")], "b"),
        ([("a", "acknowledged"), ("b", "unknown")], "a"),
        ([("a", "acknowledged"), ("b", "unknown")], "b"),
        ([("a", "unknown"), ("b", "acknowledged")], "a"),  # the first may take effect after the second
        ([("a", "acknowledged"), ("b", "refused")], "a"),
        ([("a", "unknown")], None),
        ([("a", "refused")], None),
    ],
)
def test_what_was_promised_passes(attempts: list[tuple[str, Outcome]], found: str | None) -> None:
    assert _ledger(*attempts).check(lambda path: found and sha256(found.encode())) == []


@pytest.mark.parametrize(
    ("attempts", "found", "complaint"),
    [
        ([("a", "acknowledged")], None, "lost"),
        ([("a", "acknowledged"), ("b", "unknown")], None, "lost"),
        ([("a", "acknowledged"), ("b", "acknowledged")], "a", "older"),
        ([("a", "acknowledged"), ("b", "refused")], "b", "refused"),
        ([("a", "refused")], "a", "refused"),
        ([("whole", "acknowledged")], "who", "nobody wrote"),
        ([("whole", "unknown")], "who", "nobody wrote"),
    ],
)
def test_a_planted_fault_is_seen(attempts: list[tuple[str, Outcome]], found: str | None, complaint: str) -> None:
    complaints = _ledger(*attempts).check(lambda path: found and sha256(found.encode()))
    assert len(complaints) == 1
    assert complaint in complaints[0]


def test_a_loss_and_a_change_planted_in_a_real_cluster_are_seen() -> None:
    with running() as cluster:
        ledger = Ledger()
        for name in ("kept", "removed", "replaced"):
            assert ledger.write(cluster.url, f"/{name}", name.encode() * 20_000) == "acknowledged"
        assert ledger.check(fetcher(cluster.url)) == []
        assert ask(cluster.url, "DELETE", "/v1/files/removed").status == 204
        assert put(cluster.url, "/replaced", b"something else").status == 200
        for url in cluster.node_urls.values():
            complaints = ledger.check(fetcher(url))
            assert len(complaints) == 2
            assert "/removed: lost" in complaints[0]
            assert "/replaced: bytes that nobody wrote" in complaints[1]
