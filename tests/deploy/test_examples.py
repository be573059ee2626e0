"""The example configurations are what this version understands, and agree with each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftfs.config import FrontendConfig, NodeConfig, is_loopback

EXAMPLE = Path(__file__).parents[2] / "deploy" / "example-3"
NODES = sorted(EXAMPLE.glob("n?.toml"))


def test_each_member_has_a_file_and_all_have_the_same_members() -> None:
    configs = [NodeConfig.load(path) for path in NODES]
    assert [config.id for config in configs] == [path.stem for path in NODES] == ["n1", "n2", "n3"]
    assert all(config.members == configs[0].members for config in configs)
    assert all(config.cluster_id == configs[0].cluster_id for config in configs)


@pytest.mark.parametrize("path", NODES, ids=lambda path: path.stem)
def test_members_speak_tls_beyond_their_machine(path: Path) -> None:
    config = NodeConfig.load(path)
    assert not is_loopback(config.peer_address)
    assert config.peer_tls is not None
    assert config.peer_tls.cert.stem == config.id


def test_the_frontend_knows_every_member() -> None:
    frontend = FrontendConfig.load(EXAMPLE / "frontend.toml")
    assert frontend.nodes == [member.url for member in NodeConfig.load(NODES[0]).members]
