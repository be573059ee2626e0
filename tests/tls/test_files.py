"""Certificate files that change while a server runs: new ones are used, bad ones change nothing and are told of."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from pathlib import Path

import pytest

from raftfs import AsyncClient, certificates
from raftfs.config import FrontendTLS
from raftfs.errors import ConfigError, NotTrusted
from raftfs.tls import Credentials, frontend_credentials, watching

from .authority import forge, issued
from .server import serving

EXPIRY = "raftfs_certificate_expiry_timestamp_seconds"
FAILURES = "raftfs_certificate_reload_failures_total"


def put(source: Path, live: Path, *, ca: Path | None = None) -> None:
    """The certificate ``server`` of the CA in ``source`` goes where the server looks, and its CA, or another one."""
    files = issued(source, "server")
    live.mkdir(exist_ok=True)
    for old, new in ((files.cert, "s.crt"), (files.key, "s.key"), ((ca or source) / "ca.crt", "ca.crt")):
        shutil.copyfile(old, live / new)


def load(live: Path) -> Credentials:
    return frontend_credentials(FrontendTLS(cert=live / "s.crt", key=live / "s.key", ca=live / "ca.crt"))


async def trusted(url: str, ca: Path) -> bool:
    async with AsyncClient(url, ca=ca / "ca.crt") as client:
        try:
            await client.list_page("/")
        except NotTrusted:
            return False
    return True


async def test_new_files_are_used_for_new_connections(tmp_path: Path) -> None:
    old, new, live = (tmp_path / name for name in ("old", "new", "live"))
    put(old, live)
    credentials = load(live)
    async with serving(credentials) as url, AsyncClient(url, ca=old / "ca.crt") as client:
        await client.list_page("/")
        assert (await trusted(url, old), await trusted(url, new) if issued(new, "x") else None) == (True, False)
        put(new, live)
        assert credentials.reload()
        assert (await trusted(url, old), await trusted(url, new)) == (False, True)
        await client.list_page("/")  # on the connection that stood


async def test_bad_files_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, live = tmp_path / "good", tmp_path / "live"
    put(good, live)
    credentials = load(live)
    other = issued(tmp_path / "other", "server")
    failures = 0
    async with serving(credentials) as url:
        for spoil in (
            lambda: (live / "s.key").unlink(),
            lambda: (live / "s.key").write_text("garbage"),
            lambda: (live / "s.key").write_bytes(b""),
            lambda: shutil.copyfile(other.key, live / "s.key"),  # of another certificate
            lambda: (live / "s.crt").write_text("garbage"),
        ):
            put(good, live)
            spoil()
            caplog.clear()
            assert not credentials.reload()
            failures += 1
            assert "the old ones stay in use" in caplog.text
            assert caplog.records[-1].levelno == logging.ERROR
            assert await trusted(url, good)
        async with AsyncClient(url, ca=good / "ca.crt") as client:
            session = client._transport.session()
            answer = await session.get(f"{url}/metrics", ssl=client._transport._context(url))
            text = await answer.text()
    assert f'{FAILURES}{{listener="frontend"}} {failures:.1f}' in text
    found = re.search(rf'{EXPIRY}{{listener="frontend"}} (\S+)', text)
    assert found is not None
    assert float(found[1]) * 1000 == certificates.read(good / "server.crt")[0].not_after_ms


async def test_changed_files_are_noticed_once_they_stand_still(tmp_path: Path) -> None:
    old, new, live = (tmp_path / name for name in ("old", "new", "live"))
    put(old, live)
    credentials = load(live)
    before = credentials.server
    await credentials.look()
    assert credentials.server is before
    put(new, live)
    await credentials.look()
    assert credentials.server is before, "it may be in the midst of a change"
    await credentials.look()
    assert credentials.server is not before
    after = credentials.server
    await credentials.look()
    assert credentials.server is after
    assert credentials.failures == 0


async def test_files_that_stay_bad_are_told_of_once(tmp_path: Path) -> None:
    old, live = tmp_path / "old", tmp_path / "live"
    put(old, live)
    credentials = load(live)
    (live / "s.key").unlink()
    for _ in range(5):
        await credentials.look()
    assert credentials.failures == 1
    put(old, live)
    for _ in range(2):
        await credentials.look()
    assert credentials.failures == 1


async def test_a_server_looks_by_itself(tmp_path: Path) -> None:
    old, new, live = (tmp_path / name for name in ("old", "new", "live"))
    put(old, live)
    credentials = load(live)
    before = credentials.server
    async with watching([credentials], period_s=0.01), asyncio.timeout(60):
        put(new, live)
        while credentials.server is before:  # noqa: ASYNC110 - files set no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("end_days", "says"), [(13.5, r"expires in 13\.\d days"), (-1, "has expired"), (15, None)])
def test_a_certificate_that_is_about_to_expire_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end_days: float, says: str | None
) -> None:
    certificates.make_ca(tmp_path / "ca")
    files = forge(tmp_path / "ca", tmp_path, "server", start_days=-30, end_days=end_days)
    credentials = frontend_credentials(FrontendTLS(cert=files.cert, key=files.key))
    credentials.warn()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    if says is None:
        assert not warnings
    else:
        assert len(warnings) == 1, "once a day"
        assert re.search(says, warnings[0])


def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path) -> None:
    put(tmp_path / "ca", tmp_path / "live")
    (tmp_path / "live" / "s.key").unlink()
    with pytest.raises(ConfigError, match=r"tls: there is no .*/live/s\.key"):
        load(tmp_path / "live")
