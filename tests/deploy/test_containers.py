"""The container files as far as they can be looked at without an engine: what they name is there and fits together."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from raftfs.config import FrontendConfig, MemberConfig, NodeConfig, split_address
from raftfs.service.node import Node
from raftfs.testing.processes import raftfs_environment
from tests.consensus.ports import free_address

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "containers"
CONTAINERFILE = (FOLDER / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
NODES = ["n1", "n2", "n3"]


def mounts(service: str) -> dict[str, str]:
    """Target and source of what is mounted read-only."""
    volumes = [volume.split(":") for volume in COMPOSE["services"][service]["volumes"]]
    return {parts[1]: parts[0] for parts in volumes if parts[-1] == "ro"}


def config(service: str) -> Path:
    [source] = [source for target, source in mounts(service).items() if target.endswith(".toml")]
    return FOLDER / source


def test_each_node_has_a_service_a_volume_and_a_configuration_of_its_own() -> None:
    configs = [NodeConfig.load(config(name)) for name in NODES]
    assert [values.id for values in configs] == NODES == sorted(COMPOSE["volumes"])
    for values in configs:
        assert values.members == configs[0].members
        assert not values.insecure
        assert f"{values.id}:{values.data_dir}" in COMPOSE["services"][values.id]["volumes"]
        for member in values.members:  # a service's name is its host name
            assert split_address(member.peer) == (member.id, split_address(values.peer_address)[1])
            assert member.url == f"https://{member.id}:{split_address(values.client_address)[1]}"


def test_the_frontend_knows_every_node() -> None:
    frontend, node = FrontendConfig.load(config("frontend")), NodeConfig.load(config("n1"))
    assert frontend.nodes == [member.url for member in node.members]
    assert not frontend.insecure


@pytest.mark.parametrize("service", [*NODES, "frontend"])
def test_every_file_that_a_configuration_names_is_mounted(service: str) -> None:
    values = tomllib.loads(config(service).read_text())
    named = {path for table in values.values() if isinstance(table, dict) for path in table.values()}
    mounted = mounts(service)
    assert named
    assert named <= set(mounted)
    # ... from what README.md makes
    assert {mounted[path] for path in named} <= {
        f"./certs/{name}" for name in ("ca.crt", f"{service}.crt", f"{service}.key")
    }
    assert COMPOSE["services"][service]["environment"]["RAFTFS_CA"] in mounted


@pytest.mark.parametrize("service", [*NODES, "frontend"])
def test_the_health_check_asks_the_port_that_listens(service: str) -> None:
    values = tomllib.loads(config(service).read_text())
    listen = values.get("listen") or values["client_listen"]
    url = COMPOSE["services"][service]["environment"]["RAFTFS_HEALTH_URL"]
    assert url == f"https://localhost:{split_address(listen)[1]}/livez"


def test_what_is_copied_into_the_image_is_there_and_is_all_that_a_wheel_needs() -> None:
    copied = {word for line in re.findall(r"^COPY (?!--from)(.+)$", CONTAINERFILE, re.M) for word in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert copied == {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], *wheel}
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_through == copied


def test_nobody_is_root() -> None:
    users = re.findall(r"^USER (.+)$", CONTAINERFILE, re.M)
    assert users == ["7400:7400"]
    assert all(service["cap_drop"] == ["ALL"] and service["read_only"] for service in COMPOSE["services"].values())


def healthy(url: str) -> bool:
    [words] = re.findall(r"^HEALTHCHECK .*\\\n\s+CMD (\[.+\])$", CONTAINERFILE, re.M)
    command = json.loads(words)
    assert command[0] == "python"
    environment = {key: value for key, value in raftfs_environment().items() if key != "RAFTFS_CA"}
    environment |= {"RAFTFS_HEALTH_URL": url, "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


async def test_the_health_check_tells_a_node_that_answers_from_none(tmp_path: Path) -> None:
    url = f"http://{free_address()}"
    member = MemberConfig(id="n1", peer=free_address(), url=url)
    async with Node(NodeConfig(id="n1", cluster_id="c", data_dir=tmp_path / "data", members=[member])):
        assert await asyncio.to_thread(healthy, f"{url}/livez")
        assert not await asyncio.to_thread(healthy, f"{url}/nothing-here")
    assert not healthy(f"{url}/livez")
