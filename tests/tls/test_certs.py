"""``raftfs certs``: TLS libraries believe what it makes, keys are their owner's alone, nothing is overwritten."""

from __future__ import annotations

import json
import shutil
import ssl
import stat
import subprocess
import time
from pathlib import Path

import pytest

from raftfs import certificates
from raftfs.errors import AlreadyExists, ConfigError
from raftfs_cli import exitcodes
from raftfs_cli.main import run


def test_a_key_is_its_owners_alone_and_nothing_is_overwritten(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path)
    certificates.issue(tmp_path, "n1")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.key")} == {
        "ca.key": 0o600,
        "n1.key": 0o600,
    }
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for again in (lambda: certificates.make_ca(tmp_path), lambda: certificates.issue(tmp_path, "n1")):
        with pytest.raises(AlreadyExists, match="not overwritten"):
            again()
    (tmp_path / "n1.crt").unlink()
    del before["n1.crt"]
    with pytest.raises(AlreadyExists, match=r"n1\.key"):
        certificates.issue(tmp_path, "n1")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_it_says_is_what_was_asked_for(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path, subject="our CA", days=100)
    crt = certificates.issue(tmp_path, "n1", hosts=["files.example", "10.0.0.1", "[::1]", "n1"], days=30)
    (found,) = certificates.read(crt)
    assert (found.subject, found.issuer, found.is_ca) == ("n1", "our CA", False)
    assert found.names == ("n1", "files.example", "10.0.0.1", "::1")
    assert 29.9 < found.days_left() <= 30
    assert found.not_before_ms < time.time() * 1000
    (ca,) = certificates.read(tmp_path / "ca.crt")
    assert (ca.subject, ca.issuer, ca.is_ca, ca.names) == ("our CA", "our CA", True, ())


def test_no_certificate_outlives_its_ca(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path, days=10)
    (found,) = certificates.read(certificates.issue(tmp_path, "n1", days=365))
    assert found.not_after_ms == certificates.read(tmp_path / "ca.crt")[0].not_after_ms


def test_a_bundle_of_two_cas_still_issues(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        certificates.make_ca(folder, subject=folder.name)
    (new / "ca.crt").write_bytes((old / "ca.crt").read_bytes() + (new / "ca.crt").read_bytes())
    assert certificates.read(certificates.issue(new, "n1"))[0].issuer == "new"
    assert len(certificates.read(new / "ca.crt")) == 2


@pytest.mark.parametrize("name", ["ca", "", "a b", "../n1", "-n1", "n1:7401", "ü", "n" * 64, "a..b"])
def test_names_that_could_not_be_checked_are_refused(tmp_path: Path, name: str) -> None:
    certificates.make_ca(tmp_path)
    with pytest.raises(ConfigError):
        certificates.issue(tmp_path, name)
    with pytest.raises(ConfigError):
        certificates.issue(tmp_path, "n1", hosts=["10.0.0.1:7401"])
    assert {path.name for path in tmp_path.iterdir()} == {"ca.crt", "ca.key"}


def test_a_ca_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no CA"):
        certificates.issue(tmp_path, "n1")
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        certificates.make_ca(folder)
    shutil.copy(other / "ca.crt", one / "ca.crt")
    with pytest.raises(ConfigError, match="belongs to no certificate"):
        certificates.issue(one, "n1")
    (one / "ca.key").write_text("no key")
    with pytest.raises(ConfigError, match="not a private key"):
        certificates.issue(one, "n1")
    for days in (0, -1, 10_000, float("nan")):
        with pytest.raises(ConfigError, match="days"):
            certificates.issue(other, "n1", days=days)


def test_the_strictest_checks_pass(tmp_path: Path) -> None:
    certificates.make_ca(tmp_path)
    certificates.issue(tmp_path, "n1", hosts=["10.0.0.1"])
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    context.load_cert_chain(tmp_path / "n1.crt", tmp_path / "n1.key")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command here")
    for purpose in ("sslserver", "sslclient"):
        command = [openssl, "verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", "n1", "-CAfile"]
        done = subprocess.run([*command, tmp_path / "ca.crt", tmp_path / "n1.crt"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [openssl, "verify", "-verify_hostname", "n2", "-CAfile", tmp_path / "ca.crt", tmp_path / "n1.crt"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "pki")
    assert run(["certs", "ca", folder]) == 0
    assert run(["certs", "issue", folder, "n1", "--host", "10.0.0.1", "--days", "30"]) == 0
    assert f"made {folder}/n1.crt and {folder}/n1.key" in capfd.readouterr().out
    assert run(["certs", "show", "--json", f"{folder}/n1.crt", f"{folder}/ca.crt"]) == 0
    node, ca = json.loads(capfd.readouterr().out)
    assert node.keys() >= {"file", "subject", "names", "issuer", "not_after_ms"}
    assert (node["subject"], node["names"], node["issuer"]) == ("n1", ["n1", "10.0.0.1"], "raftfs CA")
    assert (ca["is_ca"], ca["file"]) == (True, f"{folder}/ca.crt")
    assert run(["certs", "show", f"{folder}/n1.crt"]) == 0
    assert capfd.readouterr().out.splitlines()[1].split()[1:4] == ["n1", "n1,10.0.0.1", "raftfs"]
    assert run(["certs", "issue", folder, "n1"]) == exitcodes.CONFLICT
    assert run(["certs", "issue", folder, "a b"]) == exitcodes.USAGE
    assert run(["certs", "show", f"{folder}/n1.key"]) == exitcodes.USAGE
    assert run(["certs", "show", f"{folder}/none"]) == exitcodes.NOT_FOUND
