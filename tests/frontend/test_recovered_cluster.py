"""A recovered cluster, and the old one beside it: who once saw the newer leader never believes one of the old terms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from raftfs.frontend import Directory
from raftfs.frontend.upstream import Upstream
from raftfs.limits import RECOVERY_TERMS

from .scripted import ScriptedNode, silence

OLD = 5


@pytest.fixture
async def two() -> AsyncIterator[tuple[ScriptedNode, ScriptedNode, Upstream]]:
    """Two nodes that both claim to lead, in terms OLD and OLD + 1."""
    async with AsyncExitStack() as stack:
        old, new = [await stack.enter_async_context(ScriptedNode(silence)) for _ in range(2)]
        old.term, new.term = OLD, OLD + 1
        upstream = Upstream()
        stack.push_async_callback(upstream.close)
        yield old, new, upstream


async def test_a_leader_of_before_the_recovery_is_not_believed_any_more(
    two: tuple[ScriptedNode, ScriptedNode, Upstream],
) -> None:
    old, new, upstream = two
    new.term = OLD + RECOVERY_TERMS
    directory = Directory(upstream, [old.url, new.url])
    while await directory.find() != new.url:
        pass  # until both have answered, the one that did is believed
    new.leads = None
    assert await directory.find() is None
    new.leads = new.url
    assert await directory.find() == new.url
    await directory.close()


async def test_a_node_of_the_recovered_cluster_never_believed_it(
    two: tuple[ScriptedNode, ScriptedNode, Upstream],
) -> None:
    old, _, upstream = two
    directory = Directory(upstream, [old.url], term=lambda: OLD + RECOVERY_TERMS)
    assert await directory.find() is None
    await directory.close()


async def test_terms_that_differ_by_elections_alone_are_of_one_cluster(
    two: tuple[ScriptedNode, ScriptedNode, Upstream],
) -> None:
    old, new, upstream = two
    directory = Directory(upstream, [old.url, new.url], term=lambda: OLD + 100)
    while await directory.find() != new.url:
        pass
    new.leads = None
    assert await directory.find() == old.url
    await directory.close()
