"""Filters of the playbooks: who the members are, what is wrong with an inventory, and whether a cluster is at rest.

Inventories and answers of ``raftfs cluster status --json`` come in; plain lists, dictionaries and sentences go out.
Nothing here opens a file or a socket.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
LAG_ENTRIES_MAX = 100
"""A member that is no further behind than this has caught up: under traffic nobody is at zero all the time."""


def members(hosts: Iterable[str], hostvars: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The members that an inventory describes: ``host``, ``id``, ``address``, ``peer`` (host:port) and ``url`` of each.

    ``defaults``: ``client_port``, ``peer_port`` and ``scheme`` for hosts that set none of their own.
    """
    found = []
    for host in hosts:
        values = hostvars[host]
        address = str(values.get("raftfs_address") or values.get("ansible_host") or host)
        client_port = int(values.get("raftfs_client_port") or defaults["client_port"])
        peer_port = int(values.get("raftfs_peer_port") or defaults["peer_port"])
        found.append(
            {
                "host": host,
                "id": ids([host], hostvars)[0],
                "address": address,
                "client_port": client_port,
                "peer_port": peer_port,
                "peer": join_address(address, peer_port),
                "url": f"{defaults['scheme']}://{join_address(address, client_port)}",
            }
        )
    return found


def ids(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """The ids of the members that hosts are."""
    return [str(hostvars[host].get("raftfs_id") or host) for host in hosts]


def targets(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Both ports of members, as ``raftfs_probe`` takes them."""
    return [{"host": one["address"], "port": one[port]} for one in found for port in ("peer_port", "client_port")]


def frontend_targets(hosts: Iterable[str], hostvars: Mapping[str, Any], port: int) -> list[str]:
    """``host:port`` of frontends, as Prometheus takes them; ``port`` for those that set none of their own."""
    found = []
    for host in hosts:
        values = hostvars[host]
        address = str(values.get("raftfs_address") or values.get("ansible_host") or host)
        found.append(join_address(address, int(values.get("raftfs_frontend_port") or port)))
    return found


def join_address(host: str, port: int) -> str:
    """``host:port``, or ``[v6]:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_name(name: str) -> str:
    """A name as it stands in a certificate: an IP address in its shortest form."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def inventory_problems(found: list[dict[str, Any]], even_allowed: bool = False) -> list[str]:
    """What is wrong with the members of an inventory, in words; an empty list if nothing is."""
    problems = []
    if not found:
        return ["the group raftfs_nodes is empty or missing"]
    for what in ("id", "peer", "url"):
        counted = Counter(str(member[what]) for member in found)
        for value in sorted(value for value, times in counted.items() if times > 1):
            hosts = ", ".join(member["host"] for member in found if member[what] == value)
            problems.append(f"{hosts} have the same {what}, {value}: one machine is among the members twice")
    for member in found:
        if not ID.fullmatch(member["id"]):
            problems.append(
                f"{member['host']}: {member['id']!r} is no id: letters, digits, '.', '_' and '-', at most 63"
            )
        if member["client_port"] == member["peer_port"]:
            problems.append(f"{member['host']}: client port and peer port are both {member['peer_port']}")
        if member["address"].startswith("127.") or member["address"] in ("localhost", "::1"):
            problems.append(f"{member['host']}: the others cannot reach {member['address']}; set raftfs_address")
    if len(found) % 2 == 0 and not even_allowed:
        problems.append(
            f"{len(found)} members are no safer than {len(found) - 1}: use an odd number, or set raftfs_even_members"
        )
    return problems


def applied(status: Mapping[str, Any]) -> int:
    """How far the member is that has applied most."""
    return max((member.get("applied_index") or 0 for member in status["members"]), default=0)


def unsettled(status: Mapping[str, Any] | None, away: Iterable[str] = (), index: int = 0) -> list[str]:
    """Why a cluster should be left in peace for now: an answer of ``raftfs cluster status --json``, and the ids of
    members that are expected to be away. An empty list: all others are there and have everything up to ``index``.

    A member that says no ``complete_index`` is of an older release: it has to lack no chunk at this moment.
    """
    if not status:
        return ["nobody answers"]
    problems = []
    if not status.get("quorum"):
        problems.append("no quorum")
    if not status.get("leader"):
        problems.append("no leader")
    if not status.get("format"):
        problems.append("the cluster is being formed")
    expected = set(away)
    for member in status["members"]:
        name, lag = member["id"], member.get("lag")
        if name in expected:
            continue
        if not member["reachable"]:
            problems.append(f"{name} is not reachable")
        elif member.get("rejoining"):
            problems.append(f"{name} is rejoining: {member['rejoining']}")
        elif member["role"] == "learner":
            problems.append(f"{name} does not vote yet")
        elif lag is None or lag > LAG_ENTRIES_MAX:
            problems.append(f"{name} is {'an unknown number of' if lag is None else lag} entries behind")
        elif member.get("complete_index") is not None:
            if member["complete_index"] < index:
                problems.append(f"{name} has every chunk up to entry {member['complete_index']} only, not {index}")
        elif member.get("missing_chunks") != 0:
            missing = member.get("missing_chunks")
            problems.append(f"{name} lacks {'an unknown number of' if missing is None else missing} chunks")
    return problems


def membership_problems(found: list[dict[str, Any]], status: Mapping[str, Any]) -> list[str]:
    """Where an inventory and a cluster that runs differ in who is a member, with the playbook for it."""
    inside = {member["id"]: member for member in status["members"]}
    listed = {member["id"]: member for member in found}
    problems = [f"{name} is no member of the cluster: add_node.yml adds it" for name in listed if name not in inside]
    problems += [
        f"{name} is a member of the cluster and not in the inventory: list it, or remove it with remove_node.yml"
        for name in inside
        if name not in listed
    ]
    for name in sorted(inside.keys() & listed.keys()):
        there = (inside[name]["peer"], inside[name]["url"])
        here = (listed[name]["peer"], listed[name]["url"])
        if there != here:
            problems.append(
                f"{name} is a member at {there[0]} and {there[1]}, the inventory says {here[0]} and {here[1]}: "
                "replace_node.yml gives it another address"
            )
    return problems


def toml(value: object) -> str:
    """A string, number, boolean or list of them as TOML. A JSON string is a TOML string, too, but for DEL."""
    if isinstance(value, Mapping):
        raise ValueError("a table has a place of its own in the template")
    return json.dumps(value).replace("\x7f", "\\u007f")


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "raftfs_applied": applied,
            "raftfs_frontend_targets": frontend_targets,
            "raftfs_host_name": host_name,
            "raftfs_ids": ids,
            "raftfs_inventory_problems": inventory_problems,
            "raftfs_members": members,
            "raftfs_membership_problems": membership_problems,
            "raftfs_targets": targets,
            "raftfs_toml": toml,
            "raftfs_unsettled": unsettled,
        }
