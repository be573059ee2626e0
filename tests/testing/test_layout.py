"""The directory and the ports of a local cluster."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from raftfs.config import FrontendConfig, NodeConfig
from raftfs.errors import ConfigError
from raftfs.testing.layout import FRONTEND, Layout, NoCluster


def test_ports_are_where_the_documentation_says(tmp_path: Path) -> None:
    layout = Layout(tmp_path, nodes=3, port=7400)
    assert layout.url == "http://127.0.0.1:7400"
    assert [layout.node_url(node) for node in layout.ids] == [f"http://127.0.0.1:{port}" for port in (7401, 7402, 7403)]
    assert [layout.peer(node) for node in layout.ids] == [f"127.0.0.1:{port}" for port in (7411, 7412, 7413)]
    assert sorted(layout.ports()) == [7400, 7401, 7402, 7403, 7411, 7412, 7413]


def test_written_configurations_load_and_carry_the_options(tmp_path: Path) -> None:
    times = {"heartbeat_ms": 20, "election_timeout_ms_min": 100, "election_timeout_ms_max": 200}
    options = {"chunk_grace_s": 1.5, "request_deadline_s": 3.0, "times": times}
    layout = Layout(tmp_path, nodes=2, port=7400, options=options)
    layout.write()
    node = NodeConfig.load(layout.config("n2"))
    assert (node.id, node.chunk_grace_s, node.times.heartbeat_ms) == ("n2", 1.5, 20)
    assert node.data_dir == tmp_path / "n2" / "data"
    assert [member.peer for member in node.members] == ["127.0.0.1:7411", "127.0.0.1:7412"]
    frontend = FrontendConfig.load(layout.config(FRONTEND))
    assert frontend.nodes == ["http://127.0.0.1:7401", "http://127.0.0.1:7402"]
    assert frontend.request_deadline_s == 3.0


def test_an_unknown_option_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chunk_grease_s"):
        Layout(tmp_path, nodes=1, port=7400, options={"chunk_grease_s": 1}).write()


@pytest.mark.parametrize(("nodes", "port"), [(0, 7400), (10, 7400), (3, 65_530), (3, -5)])
def test_impossible_sizes_and_ports_are_refused(tmp_path: Path, nodes: int, port: int) -> None:
    with pytest.raises(ConfigError):
        Layout(tmp_path, nodes=nodes, port=port)


def test_a_moved_directory_is_read_where_it_is_now(tmp_path: Path) -> None:
    before = Layout.plan(tmp_path / "a", 3, 7400, {"chunk_grace_s": 2})
    before.write()
    shutil.move(tmp_path / "a", tmp_path / "b")
    after = Layout.plan(tmp_path / "b", None, None, {"upload_expiry_s": 3})
    assert (after.nodes, after.port, after.cluster_id) == (3, 7400, before.cluster_id)
    assert after.options == {"chunk_grace_s": 2, "upload_expiry_s": 3}
    assert after.data_dir("n1") == tmp_path / "b" / "n1" / "data"


def test_another_number_of_nodes_is_refused(tmp_path: Path) -> None:
    Layout.plan(tmp_path, 3, 7400, {}).write()
    with pytest.raises(ConfigError, match="has 3 nodes, not 5"):
        Layout.plan(tmp_path, 5, None, {})


def test_two_new_clusters_have_two_identities(tmp_path: Path) -> None:
    assert Layout(tmp_path, 3, 7400).cluster_id != Layout(tmp_path, 3, 7400).cluster_id


def test_no_cluster_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NoCluster, match=r"raftfs dev up --dir"):
        Layout.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', json.dumps({"version": 2})])
def test_a_damaged_directory_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ConfigError, match=r"cluster\.json"):
        Layout.load(tmp_path)


def test_an_unknown_name_is_refused_before_it_becomes_a_path(tmp_path: Path) -> None:
    layout = Layout(tmp_path, nodes=2, port=7400)
    for name in ("n3", "../n1", "", "N1"):
        with pytest.raises(ConfigError, match="n1, n2, frontend"):
            layout.pid_file(name)
