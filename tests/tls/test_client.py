"""The library and the command as clients of servers that speak TLS: whom they trust, and what they say if they do not
trust somebody."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from raftfs import AsyncClient, certificates, connect
from raftfs.config import FrontendTLS
from raftfs.errors import ConfigError, InvalidRequest, NotTrusted, Unavailable
from raftfs.tls import frontend_credentials
from raftfs_cli import exitcodes
from raftfs_cli.main import run
from tests.consensus.ports import free_address

from .authority import forge, issued
from .server import credentials_of, serving

FOR_EVER_S = 3600.0
"""Who went on until the deadline would run into the time that a test may take."""


def client(url: str, **files: Path) -> AsyncClient:
    return AsyncClient(url, deadline_s=FOR_EVER_S, **files)  # type: ignore[arg-type]


async def test_a_server_of_the_named_ca_is_trusted(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    async with serving(credentials_of(ca)) as url, client(url, ca=ca / "ca.crt") as fs:
        assert (await fs.list_page("/")).entries == []


@pytest.mark.parametrize("named", ["no CA", "another CA", "its CA, for another host"])
async def test_a_server_that_cannot_be_trusted_is_not_asked(tmp_path: Path, named: str) -> None:
    ca, other = issued(tmp_path / "ca", "server").ca, issued(tmp_path / "other", "server").ca
    says, credentials = "unable to get local issuer certificate", credentials_of(tmp_path / "ca")
    if named == "its CA, for another host":
        crt = certificates.issue(tmp_path / "ca", "elsewhere")
        says = "IP address mismatch"
        credentials = frontend_credentials(FrontendTLS(cert=crt, key=crt.with_suffix(".key")))
    files = {} if named == "no CA" else {"ca": other if named == "another CA" else ca}
    async with serving(credentials) as url, client(url, **files) as fs:
        for call in (lambda: fs.list_page("/"), lambda: fs.write("/a", b"x")):
            with pytest.raises(NotTrusted, match=f"its certificate is not accepted: {says}"):
                await call()


@pytest.mark.parametrize(
    ("days", "says"), [((-2, -1), "certificate has expired"), ((1, 2), "certificate is not yet valid")]
)
async def test_a_server_out_of_its_time_is_not_trusted(tmp_path: Path, days: tuple[int, int], says: str) -> None:
    ca = issued(tmp_path / "ca", "x").ca
    files = forge(tmp_path / "ca", tmp_path, "server", start_days=days[0], end_days=days[1])
    credentials = frontend_credentials(FrontendTLS(cert=files.cert, key=files.key))
    async with serving(credentials) as url, client(url, ca=ca) as fs:
        with pytest.raises(NotTrusted, match=says):
            await fs.list_page("/")


async def test_the_wrong_scheme_is_named(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    async with serving(credentials_of(ca)) as url, client(url.replace("https", "http")) as fs:
        with pytest.raises(InvalidRequest, match="This port speaks TLS: the URL must begin with https://"):
            await fs.list_page("/")
        with pytest.raises(InvalidRequest, match="This port speaks TLS"):
            await fs.write("/a", b"x" * 3_000_000)
    async with serving(None) as url, client(url.replace("http", "https"), ca=ca / "ca.crt") as fs:
        with pytest.raises(NotTrusted, match="it does not speak TLS there"):
            await fs.list_page("/")


async def test_a_server_that_demands_a_certificate(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    mine, other = issued(ca, "me"), issued(tmp_path / "other", "me")
    expired = forge(ca, tmp_path, "me", start_days=-2, end_days=-1)
    async with serving(credentials_of(ca, require_client_cert=True)) as url:
        async with client(url, ca=mine.ca, cert=mine.cert, key=mine.key) as fs:
            assert (await fs.list_page("/")).entries == []
        both = tmp_path / "both.pem"
        both.write_bytes(mine.cert.read_bytes() + mine.key.read_bytes())
        async with client(url, ca=mine.ca, cert=both) as fs:
            assert (await fs.list_page("/")).entries == []
        for files, says in (
            ({}, "certificate required"),
            ({"cert": other.cert, "key": other.key}, "unknown ca"),
            ({"cert": expired.cert, "key": expired.key}, "certificate expired"),
        ):
            async with client(url, ca=mine.ca, **files) as fs:
                for call in (lambda fs=fs: fs.list_page("/"), lambda fs=fs: fs.write("/a", b"x")):
                    with pytest.raises(NotTrusted, match=f"wants one: {says}") as caught:
                        await call()
            assert caught.value.outcome == "not_applied"


async def test_one_endpoint_that_is_not_trusted_does_not_keep_from_the_others(tmp_path: Path) -> None:
    ca, other = tmp_path / "ca", tmp_path / "other"
    async with serving(credentials_of(other)) as wrong, serving(credentials_of(ca)) as right:
        async with AsyncClient([wrong, right], deadline_s=FOR_EVER_S, ca=ca / "ca.crt") as fs:
            assert (await fs.list_page("/")).entries == []
        async with AsyncClient([wrong, wrong.replace("127.0.0.1", "localhost")], ca=ca / "ca.crt") as fs:
            with pytest.raises(NotTrusted):
                await fs.list_page("/")


async def test_a_client_finds_the_new_ca_in_its_file(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    bundle = tmp_path / "ca.crt"
    async with serving(credentials_of(old)) as before, serving(credentials_of(new)) as after:
        bundle.write_bytes((old / "ca.crt").read_bytes())
        async with AsyncClient([before], ca=bundle) as fs:
            await fs.list_page("/")
            fs._transport.options = fs.options = type(fs.options)((after,), ca=str(bundle))
            with pytest.raises(NotTrusted):
                await fs.list_page("/")
            bundle.write_bytes((new / "ca.crt").read_bytes())
            await fs.list_page("/")


def test_files_come_from_arguments_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFTFS_CA", "/env/ca")
    monkeypatch.setenv("RAFTFS_CERT", "/env/cert")
    monkeypatch.setenv("RAFTFS_KEY", "/env/key")
    options = connect("https://a:1").options
    assert (options.ca, options.cert, options.key) == ("/env/ca", "/env/cert", "/env/key")
    options = connect("https://a:1", ca="/my/ca", cert="/my/both").options
    assert (options.ca, options.cert, options.key) == ("/my/ca", "/my/both", None)
    assert pickle.loads(pickle.dumps(connect("https://a:1", ca="/my/ca"))).options.ca == "/my/ca"
    monkeypatch.setenv("RAFTFS_CERT", "")
    monkeypatch.setenv("RAFTFS_KEY", "/env/key")
    with pytest.raises(ConfigError, match="key is given without cert"):
        connect("https://a:1")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    url = f"https://{free_address()}"
    with connect(url, ca=tmp_path / "none.crt") as fs, pytest.raises(ConfigError, match=r"none\.crt"):
        fs.list_page("/")
    with connect(url) as fs, pytest.raises(Unavailable):
        fs.list_page("/", timeout=0.5)


def test_the_command_takes_the_files_as_options(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = issued(tmp_path, "me")
    url = f"https://{free_address()}"
    words = ["--endpoint", url, "--timeout", "0.5", "--cert", str(files.cert), "--key", str(files.key)]
    assert run([*words, "--ca", str(tmp_path / "none.crt"), "ls", "/"]) == exitcodes.USAGE
    assert "none.crt" in capfd.readouterr().err
    assert run([*words, "--ca", str(files.ca), "ls", "/"]) == exitcodes.UNAVAILABLE
    assert "cannot reach" in capfd.readouterr().err
