"""Much and many: a gigabyte through every door in bounded memory, and a tree of real files with the real command."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftfs.testing.processes import raftfs_command, raftfs_environment

from .clusters import CALM, running, settle
from .machine import MIB, MemoryWatch
from .web import fetch, put_local, status_of

GIB = 1024 * MIB
MEMORY_BYTES_MAX = 300 * MIB
FILES_MIN = 500


@pytest.fixture
def random_gigabyte(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    path, hasher = tmp_path / "gigabyte", hashlib.sha256()
    try:
        with path.open("wb") as file:
            for _ in range(GIB // MIB):
                block = os.urandom(MIB)
                hasher.update(block)
                file.write(block)
        yield path, hasher.hexdigest()
    finally:
        path.unlink(missing_ok=True)


def test_a_gigabyte_through_the_frontend_and_back_through_every_server(random_gigabyte: tuple[Path, str]) -> None:
    source, digest = random_gigabyte
    with running(**CALM) as cluster, MemoryWatch(cluster) as memory:
        sent = put_local(cluster.url, "/gigabyte", source)
        assert sent.status == 201, str(sent)
        print(f"put of 1 GiB through the frontend: {GIB / 1e6 / sent.seconds:.0f} MB/s")
        for name, url in {"frontend": cluster.url, **cluster.node_urls}.items():
            got = fetch(url, "/gigabyte")
            print(f"get of 1 GiB through {name}: {GIB / 1e6 / got.seconds:.0f} MB/s")
            assert (got.status, got.size, got.sha256) == (200, GIB, digest)
        settle(cluster)
        print(f"term at the end: {status_of(cluster.node_urls['n1'])['term']}")
    print(memory)
    assert memory.samples > 0
    assert set(memory.peak) == {"frontend", "n1", "n2", "n3"}
    assert max(memory.peak.values()) < MEMORY_BYTES_MAX, str(memory)


def _raftfs(*arguments: str) -> str:
    command = [*raftfs_command(), *arguments]
    done = subprocess.run(command, env=raftfs_environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _copy_of_the_standard_library(target: Path) -> int:
    """Its sources, without what Python compiles while the test runs. The number of files."""
    source = sysconfig.get_path("stdlib")
    excluded = [
        "--exclude=__pycache__",
        "--exclude=./site-packages",
        "--exclude=./dist-packages",
        "--exclude=./test",
        "--exclude=config-*",
    ]
    target.mkdir()
    with subprocess.Popen(["tar", "-C", source, *excluded, "-chf", "-", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-C", str(target), "-xf", "-"], stdin=tar.stdout, check=True)
    assert tar.returncode == 0
    for folder, subfolders, files in os.walk(target, topdown=False):
        if not files and not any((Path(folder) / sub).exists() for sub in subfolders):
            Path(folder).rmdir()  # directories that hold no file are no matter of this test
    return sum(len(files) for _, _, files in os.walk(target))


def test_a_tree_of_real_files_with_the_real_command_from_every_node(tmp_path: Path) -> None:
    tree = tmp_path / "stdlib"
    number = _copy_of_the_standard_library(tree)
    sizes = sorted(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    print(f"{number} files, {sum(sizes) / 1e6:.0f} MB, sizes {sizes[0]} to {sizes[-1]}, median {sizes[number // 2]}")
    assert number >= FILES_MIN
    with running(**CALM) as cluster, MemoryWatch(cluster) as memory:
        _raftfs("put", "-r", "--quiet", "--endpoint", cluster.url, str(tree), "/stdlib")
        for node, url in cluster.node_urls.items():
            copy = tmp_path / f"from-{node}"
            _raftfs("get", "-r", "--quiet", "--endpoint", url, "/stdlib", str(copy))
            subprocess.run(["diff", "-r", str(tree), str(copy)], check=True)
            assert sum(len(files) for _, _, files in os.walk(copy)) == number
        settle(cluster)
    print(memory)
