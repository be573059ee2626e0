"""The Python of the playbooks: an inventory's mistakes are seen, and a cluster at rest is told from one that is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "deploy" / "filter_plugins" / "raftfs.py"
DEFAULTS = {"client_port": 7401, "peer_port": 7411, "scheme": "https"}


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_filters", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


filters = _load()


def _members(**hosts: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = filters.members(hosts, hosts, DEFAULTS)
    return found


def _three(**more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"n{n}": {"ansible_host": f"192.0.2.{n}"} for n in (1, 2, 3)} | more


def _status(**changed: dict[str, Any]) -> dict[str, Any]:
    whole = {"reachable": True, "role": "follower", "lag": 0, "missing_chunks": 0, "rejoining": None}
    members = [
        {"id": one["id"], "peer": one["peer"], "url": one["url"], **whole, **changed.get(one["id"], {})}
        for one in _members(**_three())
    ]
    return {"quorum": True, "leader": {"id": "n1", "url": ""}, "format": 1, "members": members}


def test_members_take_what_the_inventory_says() -> None:
    n1, n2 = _members(
        n1={"ansible_host": "192.0.2.1"}, n2={"raftfs_id": "b", "raftfs_address": "2001:db8::2", "raftfs_peer_port": 9}
    )
    assert (n1["id"], n1["peer"], n1["url"]) == ("n1", "192.0.2.1:7411", "https://192.0.2.1:7401")
    assert (n2["id"], n2["peer"], n2["url"]) == ("b", "[2001:db8::2]:9", "https://[2001:db8::2]:7401")


def test_an_inventory_without_a_mistake_passes() -> None:
    assert filters.inventory_problems(_members(**_three())) == []


@pytest.mark.parametrize(
    ("hosts", "word"),
    [
        ({}, "empty"),
        (_three(n3={"ansible_host": "192.0.2.2"}), "twice"),
        (_three(n3={"ansible_host": "192.0.2.3", "raftfs_id": "n1"}), "same id"),
        (_three(n4={"ansible_host": "192.0.2.4"}), "odd number"),
        (_three(n3={"ansible_host": "127.0.0.1"}), "cannot reach"),
        (_three(n3={"ansible_host": "192.0.2.3", "raftfs_id": "no spaces"}), "is no id"),
        (_three(n3={"ansible_host": "192.0.2.3", "raftfs_peer_port": 7401}), "client port and peer port"),
    ],
)
def test_an_inventory_with_a_mistake_is_refused(hosts: dict[str, dict[str, Any]], word: str) -> None:
    problems = filters.inventory_problems(_members(**hosts))
    assert any(word in problem for problem in problems), problems


def test_an_even_number_may_be_wanted() -> None:
    assert filters.inventory_problems(_members(**_three(n4={"ansible_host": "192.0.2.4"})), True) == []


def test_a_cluster_at_rest_may_be_touched() -> None:
    assert filters.unsettled(_status(n2={"lag": filters.LAG_ENTRIES_MAX})) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"reachable": False}, "not reachable"),
        ({"role": "learner"}, "does not vote"),
        ({"lag": filters.LAG_ENTRIES_MAX + 1}, "behind"),
        ({"lag": None}, "unknown number of entries"),
        ({"missing_chunks": 1}, "lacks 1"),
        ({"missing_chunks": None}, "unknown number of chunks"),
        ({"rejoining": "half"}, "rejoining"),
    ],
)
def test_a_cluster_that_is_not_at_rest_is_left_alone(change: dict[str, Any], word: str) -> None:
    problems = filters.unsettled(_status(n2=change))
    assert len(problems) == 1
    assert word in problems[0]
    assert filters.unsettled(_status(n2=change), ["n2"]) == []


@pytest.mark.parametrize("change", [{"quorum": False}, {"leader": None}, {"format": 0}])
def test_without_leader_quorum_or_format_nothing_is_at_rest(change: dict[str, Any]) -> None:
    assert len(filters.unsettled(_status() | change)) == 1
    assert filters.unsettled({}) == ["nobody answers"]


def test_an_inventory_of_other_members_than_the_cluster_is_refused() -> None:
    assert filters.membership_problems(_members(**_three()), _status()) == []
    hosts = _three(n3={"ansible_host": "192.0.2.9"}, n4={"ansible_host": "192.0.2.4"})
    del hosts["n2"]
    problems = "\n".join(filters.membership_problems(_members(**hosts), _status()))
    assert "n4 is no member" in problems
    assert "n2 is a member of the cluster and not" in problems
    assert "replace_node.yml" in problems


def test_toml_strings_are_quoted() -> None:
    assert filters.toml('a"b\x7f') == '"a\\"b\\u007f"'
    assert filters.toml(["a", "b"]) == '["a", "b"]'
    assert filters.toml(True) == "true"
    with pytest.raises(ValueError, match="table"):
        filters.toml({"a": 1})


def test_prometheus_asks_frontends_at_their_own_addresses() -> None:
    hosts = {"f1": {"ansible_host": "192.0.2.21"}, "f2": {"raftfs_address": "2001:db8::1", "raftfs_frontend_port": 80}}
    assert filters.frontend_targets(hosts, hosts, 7400) == ["192.0.2.21:7400", "[2001:db8::1]:80"]


def test_under_traffic_chunks_count_up_to_an_index_only() -> None:
    busy = _status(n2={"applied_index": 90, "complete_index": 80, "missing_chunks": 3})
    assert filters.applied(busy) == 90
    assert filters.unsettled(busy, [], 80) == []
    assert len(filters.unsettled(busy, [], 81)) == 1
