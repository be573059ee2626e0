"""What is forwarded goes to nodes that are trusted, with our certificate, and never in the clear."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from multidict import CIMultiDict

from raftfs.config import NodesTLS, PeerTLS
from raftfs.frontend import Directory
from raftfs.frontend.upstream import ATTEMPT_ERRORS, CONNECT_ERRORS, Upstream
from raftfs.models import LeaderRef
from raftfs.tls import Credentials, dialing_credentials

from .authority import forge, issued
from .server import credentials_of, serving

TARGET = "/v1/dirs/"


@asynccontextmanager
async def dialing(ca: Path, files: PeerTLS | None = None) -> AsyncIterator[tuple[Upstream, Credentials]]:
    shown = {} if files is None else {"cert": files.cert, "key": files.key}
    credentials = dialing_credentials(NodesTLS(ca=ca, **shown))
    upstream = Upstream(credentials)
    try:
        yield upstream, credentials
    finally:
        await upstream.close()


async def test_a_node_that_demands_a_certificate_gets_ours(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    mine = issued(ca, "frontend")
    async with (
        serving(credentials_of(ca, require_client_cert=True)) as url,
        dialing(mine.ca, mine) as (upstream, _),
    ):
        assert await upstream.ask(url, TARGET, timeout_s=60)


async def test_a_write_that_met_no_trust_was_not_applied_and_may_go_to_another_node(tmp_path: Path) -> None:
    """These are the errors after which the forwarder knows that no byte of it was looked at."""
    ca = tmp_path / "ca"
    mine, other = issued(ca, "frontend"), issued(tmp_path / "other", "frontend")
    expired = forge(ca, tmp_path, "frontend", start_days=-2, end_days=-1)
    async with serving(credentials_of(ca, require_client_cert=True)) as url:
        for trusted, files in ((mine.ca, None), (mine.ca, other), (mine.ca, expired), (other.ca, mine)):
            async with dialing(trusted, files) as (upstream, _):
                with pytest.raises(CONNECT_ERRORS):
                    await upstream.send(url, "PUT", "/v1/files/a", CIMultiDict(), b"x")


async def test_a_node_of_a_dropped_ca_is_not_used_although_a_connection_to_it_is_kept(tmp_path: Path) -> None:
    old, new, live = issued(tmp_path / "old", "x").ca, issued(tmp_path / "new", "x").ca, tmp_path / "ca.crt"
    shutil.copyfile(old, live)
    async with serving(credentials_of(tmp_path / "old")) as url, dialing(live) as (upstream, credentials):
        assert await upstream.ask(url, TARGET, timeout_s=60)
        shutil.copyfile(new, live)
        assert await upstream.ask(url, TARGET, timeout_s=60)
        assert credentials.reload()
        with pytest.raises(ATTEMPT_ERRORS, match="CERTIFICATE_VERIFY_FAILED"):
            await upstream.ask(url, TARGET, timeout_s=60)


async def test_nobody_talks_a_secure_directory_into_the_clear() -> None:
    clear, tls, here = "http://10.0.0.2:7401", "https://10.0.0.3:7401", "http://127.0.0.1:7401"
    upstream = Upstream()
    for secure, believed in ((True, [here, tls]), (False, [here, clear, tls])):
        directory = Directory(upstream, [here], secure=secure, local=lambda: LeaderRef(id="n2", url=clear))
        for url in (clear, tls):
            directory.hint(url)
        assert directory.nodes == believed
        assert directory.leader() == (tls if secure else clear)
    await upstream.close()
