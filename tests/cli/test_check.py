"""``raftfs node check`` and ``raftfs frontend check``: what they let through and refuse, with which exit code."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
import trustme

from raftfs.service.datadir import Identity, write_identity
from raftfs.state import StateMachine
from raftfs.versions import FORMAT_VERSION
from raftfs_cli import exitcodes
from raftfs_cli.main import run

from .conftest import Done

Check = Callable[..., Done]


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str]) -> Check:
    def call(*words: object) -> Done:
        capfd.readouterr()
        code = run([str(word) for word in words])
        return Done(code, *capfd.readouterr())

    return call


def node(folder: Path, **changes: object) -> Path:
    """A configuration of n1 whose data lie in ``folder``/data."""
    members = [{"id": f"n{i}", "peer": f"127.0.0.1:741{i}", "url": f"http://127.0.0.1:740{i}"} for i in (1, 2, 3)]
    values = {"id": "n1", "cluster_id": "c", "data_dir": str(folder / "data"), "members": members, **changes}
    path = folder / "node.toml"
    path.write_text(tomli_w.dumps(values))
    return path


def with_data(folder: Path) -> Path:
    """The same, with the data directory of a node that was started once."""
    data = folder / "data"
    data.mkdir()
    write_identity(data, Identity(str(uuid.uuid4()), "n1", "c"))
    StateMachine(data / "state.db", version=FORMAT_VERSION).close()
    return data


def test_a_good_configuration_needs_none_of_its_files(check: Check, tmp_path: Path) -> None:
    tls = {key: str(tmp_path / "absent") for key in ("cert", "key", "ca")}
    done = check("node", "check", "--json", "--config", node(tmp_path, peer_tls=tls))
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["ok"], found["kind"], found["id"], found["files"]) == (True, "node", "n1", False)
    assert (found["client_address"], found["peer_address"]) == ("127.0.0.1:7401", "127.0.0.1:7411")
    assert [member["id"] for member in found["members"]] == ["n1", "n2", "n3"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"id": "n9"}, "n9"), ({"heartbeat": 1}, "heartbeat"), ({"peer_listen": "0.0.0.0:7411"}, "loopback")],
)
def test_a_wrong_configuration_is_refused(check: Check, tmp_path: Path, changes: dict[str, object], word: str) -> None:
    done = check("node", "check", "--json", "--config", node(tmp_path, **changes))
    assert (done.code, done.out) == (exitcodes.USAGE, "")
    problem = json.loads(done.err)
    assert problem["code"] == "config_error"
    assert word in problem["detail"]
    assert "node.toml" in problem["detail"]


def test_a_file_that_is_not_there_is_refused(check: Check, tmp_path: Path) -> None:
    assert check("node", "check", "--config", tmp_path / "absent").code == exitcodes.USAGE


def test_certificates_are_loaded_when_asked_for(check: Check, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    certificate = authority.issue_cert("n1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    tls = {key: str(tmp_path / key) for key in ("cert", "key", "ca")}
    config = node(tmp_path, peer_tls=tls)
    refused = check("node", "check", "--files", "--config", config)
    assert refused.code == exitcodes.USAGE
    assert "peer_tls" in refused.err
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    assert check("node", "check", "--files", "--config", config).code == 0
    authority.issue_cert("n1").private_key_pem.write_to_path(tmp_path / "key")  # of another certificate
    assert check("node", "check", "--files", "--config", config).code == exitcodes.USAGE


def test_the_data_directory_is_looked_at_and_left_as_it_is(check: Check, tmp_path: Path) -> None:
    config = node(tmp_path)
    assert "not there yet" in check("node", "check", "--files", "--config", config).out
    data = with_data(tmp_path)
    before = {path: path.read_bytes() for path in data.rglob("*")}
    assert check("node", "check", "--files", "--config", config).code == 0
    assert {path: path.read_bytes() for path in data.rglob("*")} == before


def test_data_of_another_member_are_refused(check: Check, tmp_path: Path) -> None:
    data = with_data(tmp_path)
    write_identity(data, Identity(str(uuid.uuid4()), "n2", "c"))
    done = check("node", "check", "--files", "--config", node(tmp_path))
    assert done.code == exitcodes.USAGE
    assert "'n2'" in done.err


def test_damaged_data_have_their_own_code(check: Check, tmp_path: Path) -> None:
    data = with_data(tmp_path)
    (data / "node.json").write_bytes(b"{}")
    assert check("node", "check", "--files", "--config", node(tmp_path)).code == exitcodes.DAMAGED
    assert check("node", "check", "--config", node(tmp_path)).code == 0


def test_a_database_that_is_none_is_damage(check: Check, tmp_path: Path) -> None:
    (with_data(tmp_path) / "state.db").write_bytes(b"\0" * 8192)
    assert check("node", "check", "--files", "--config", node(tmp_path)).code == exitcodes.DAMAGED


def test_data_of_a_newer_release_have_their_own_code(check: Check, tmp_path: Path) -> None:
    path = with_data(tmp_path) / "state.db"
    data = bytearray(path.read_bytes())
    assert int.from_bytes(data[60:64], "big") == FORMAT_VERSION
    data[60:64] = (FORMAT_VERSION + 1).to_bytes(4, "big")
    path.write_bytes(data)
    assert check("node", "check", "--files", "--config", node(tmp_path)).code == exitcodes.OTHER_VERSION


def test_a_frontend_is_checked_too(check: Check, tmp_path: Path) -> None:
    config = tmp_path / "frontend.toml"
    config.write_text('listen = "127.0.0.1:7400"\nnodes = ["http://127.0.0.1:7401"]\n')
    found = json.loads(check("frontend", "check", "--json", "--config", config).out)
    assert (found["ok"], found["kind"], found["listen"]) == (True, "frontend", "127.0.0.1:7400")
    config.write_text('listen = "10.0.0.1:7400"\nnodes = ["http://127.0.0.1:7401"]\n')
    assert check("frontend", "check", "--config", config).code == exitcodes.USAGE


def test_codes_that_are_not_to_be_restarted_on_differ() -> None:
    assert len(set(exitcodes.NOT_TO_RESTART)) == 4
    assert exitcodes.FAILURE not in exitcodes.NOT_TO_RESTART  # whatever may pass is tried again


def test_the_documented_unit_names_all_of_them() -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    [codes] = re.findall(r"^RestartPreventExitStatus=([\d ]+)$", text, re.M)
    assert sorted(map(int, codes.split())) == sorted(exitcodes.NOT_TO_RESTART)
