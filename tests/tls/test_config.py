"""What a configuration may leave open: nothing beyond loopback goes in the clear unless it says ``insecure = true``."""

from __future__ import annotations

from typing import Any

import pytest

from raftfs.config import FrontendConfig, NodeConfig

FILES = {"cert": "x.crt", "key": "x.key", "ca": "ca.crt"}
NODES_TLS = {"ca": "ca.crt"}


def node(url: str = "https://10.0.0.1:7401", other: str = "https://10.0.0.2:7401", **values: Any) -> NodeConfig:
    members = [{"id": "n1", "peer": "10.0.0.1:7411", "url": url}, {"id": "n2", "peer": "10.0.0.2:7411", "url": other}]
    return NodeConfig(id="n1", cluster_id="c", data_dir="/d", **values, members=members)


def test_a_node_beyond_loopback_has_certificates_for_both_ports() -> None:
    assert node(peer_tls=FILES, client_tls=FILES).client_tls is not None
    assert node(insecure=True, url="http://10.0.0.1:7401", other="http://10.0.0.2:7401").client_tls is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"client_tls": FILES}, r"set \[peer_tls\]"),
        ({"peer_tls": FILES, "url": "http://10.0.0.1:7401"}, r"set \[client_tls\]"),
        ({"peer_tls": FILES}, r"needs \[client_tls\]"),
        ({"peer_tls": FILES, "client_listen": "0.0.0.0:7401"}, r"set \[client_tls\]"),
        ({"peer_tls": FILES, "client_tls": FILES, "url": "http://10.0.0.1:7401"}, "must begin with https"),
        ({"peer_tls": FILES, "client_tls": FILES, "other": "http://10.0.0.2:7401"}, "10.0.0.2:7401 is not loopback"),
        ({"peer_tls": FILES, "client_tls": FILES, "other": "http://n2"}, "http://n2 is not loopback"),
        ({"peer_tls": FILES, "client_tls": {"cert": "x.crt", "key": "x.key"}}, "client_tls.ca"),
    ],
)
def test_a_node_that_would_speak_in_the_clear_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        node(**values)


def test_a_proxy_may_speak_tls_for_a_node() -> None:
    assert node(peer_tls=FILES, client_listen="127.0.0.1:7401").client_address == "127.0.0.1:7401"


def test_a_frontend_beyond_loopback_has_a_certificate() -> None:
    frontend = FrontendConfig(listen="10.0.0.9:7400", nodes=["https://n1:7401"], tls=FILES, nodes_tls=NODES_TLS)
    assert frontend.tls is not None
    assert FrontendConfig(listen="10.0.0.9:7400", nodes=["http://n1:7401"], insecure=True).tls is None


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"nodes": ["https://n1:7401"]}, r"set \[tls\]"),
        ({"nodes": ["http://n1:7401"], "tls": FILES}, "http://n1:7401 is not loopback"),
        ({"nodes": ["n1:7401"], "tls": FILES}, "must start with http"),
        ({"nodes": ["https://n1"], "tls": {"cert": "a", "key": "b", "require_client_cert": True}}, "needs ca"),
        ({"nodes": ["https://n1"], "tls": FILES, "nodes_tls": {"ca": "a", "cert": "b"}}, "go together"),
    ],
)
def test_a_frontend_that_would_speak_in_the_clear_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FrontendConfig(listen="10.0.0.9:7400", **values)
