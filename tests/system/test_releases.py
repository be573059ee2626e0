"""Two releases on the same log: processes that apply entries, one with this code, one with the next."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from raftfs.state import (
    Command,
    CommitFile,
    Copy,
    Envelope,
    MakeDirectory,
    Remove,
    Rename,
    SwitchVersion,
    encode,
)
from raftfs.testing.processes import raftfs_environment
from raftfs.versions import FORMAT_VERSION, UNDECIDED

from .other_release import NEXT, NEXT_FORMAT, Release, make_release

REPLAY = Path(__file__).parents[1] / "state" / "replay.py"
Entries = list[list[bytes]]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("release"), *NEXT)


def apply(state: Path, entries: Entries, release: Release | None = None) -> subprocess.CompletedProcess[str]:
    """Apply what the state has not applied yet, with this code or with that of ``release``, from undecided on."""
    file = state.with_suffix(".entries")
    file.write_bytes(msgspec.msgpack.encode(entries))
    return subprocess.run(
        [sys.executable, "-P", str(REPLAY), str(state), str(file), str(UNDECIDED)],
        env=raftfs_environment() if release is None else release.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def state_hash(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert len(last) == 64
    return last


def plain_entries(seed: int, count: int) -> Entries:
    """What both releases know, with many refusals among it: their words differ."""
    dice = random.Random(seed)

    def path() -> str:
        return "".join(f"/{dice.choice('abc')}" for _ in range(dice.randint(1, 3)))

    def command() -> Command:
        data = dice.randbytes(dice.randint(0, 300))
        return dice.choice(
            [
                MakeDirectory(path(), parents=dice.random() < 0.5),
                CommitFile(path(), len(data), data=data, parents=True),
                Rename(path(), path(), replace=True),
                Copy(path(), path()),
                Remove(path(), recursive=dice.random() < 0.3),
            ]
        )

    def envelope(number: int) -> bytes:
        key = f"key-{dice.randint(1, 40)}" if dice.random() < 0.4 else None
        return encode(Envelope(command(), 1_000 + number, key, b"f" if key else b""))

    return [[envelope(number) for _ in range(dice.randint(0, 8))] for number in range(count)]


def switch(present: int, version: int) -> bytes:
    return encode(Envelope(SwitchVersion(present, version), 1, format=UNDECIDED))


def of_the_next_format(time_ms: int) -> list[bytes]:
    """As the next release encodes them: a command and a field that this one does not know."""
    return [
        msgspec.msgpack.encode([command, time_ms, key, b"f", NEXT_FORMAT])
        for command, key in (
            (["Stamp", "/a"], None),
            (["MakeDirectory", f"/labelled-{time_ms}", False, False, "label"], f"label-{time_ms}"),
        )
    ]


def test_two_releases_come_to_the_same_state_before_and_after_the_switch(release: Release, tmp_path: Path) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    before = [[switch(UNDECIDED, FORMAT_VERSION)], *plain_entries(seed, 60), of_the_next_format(5_000)]
    before += plain_entries(seed + 1, 20)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert state_hash(apply(ours, before)) == state_hash(apply(theirs, before, release))
    # Judged by the new format from within the entry on; then this state is upgraded in its place.
    whole = [*before, [*of_the_next_format(6_000), switch(FORMAT_VERSION, NEXT_FORMAT), *of_the_next_format(7_000)]]
    whole += plain_entries(seed + 2, 20)
    after = state_hash(apply(theirs, whole, release))
    assert after == state_hash(apply(ours, whole, release)) == state_hash(apply(tmp_path / "new", whole, release))


def test_code_that_does_not_understand_the_switch_stops_before_it(release: Release, tmp_path: Path) -> None:
    before = [[switch(UNDECIDED, FORMAT_VERSION)], *plain_entries(3, 10)]
    whole = [*before, [switch(FORMAT_VERSION, NEXT_FORMAT)], [], *plain_entries(4, 10)]
    stopped = apply(tmp_path / "ours", whole)
    assert stopped.returncode != 0
    assert f"install one that understands format {NEXT_FORMAT}" in stopped.stderr
    assert stopped.stdout.splitlines()[-1] == str(len(before)), "nothing from the switch on is applied"
    # It goes on with the next release as if it had never stopped; then it is lost to the old one.
    right = state_hash(apply(tmp_path / "new", whole, release))
    assert state_hash(apply(tmp_path / "ours", whole, release)) == right
    refused = apply(tmp_path / "ours", whole)
    assert refused.returncode != 0
    assert f"has format {NEXT_FORMAT}, this raftfs understands up to {FORMAT_VERSION}" in refused.stderr


def test_the_comparison_sees_a_release_that_acts_on_its_new_format_too_early(tmp_path: Path) -> None:
    early = make_release(
        tmp_path / "early", *NEXT, ("state/machine.py", "if needed > self._meta.version:", "if False:")
    )
    entries = [[switch(UNDECIDED, FORMAT_VERSION)], of_the_next_format(5_000)[1:]]
    assert state_hash(apply(tmp_path / "ours", entries)) != state_hash(apply(tmp_path / "theirs", entries, early))


def test_the_comparison_sees_results_whose_words_are_hashed(tmp_path: Path) -> None:
    """Why the hash leaves out ``detail``: with it, two releases that word an error differently would differ."""
    hashing = ("state/commands.py", "            result.replayed,\n", "            result.detail,\n")
    old, new = make_release(tmp_path / "old", hashing), make_release(tmp_path / "next", *NEXT, hashing)
    entries = [[switch(UNDECIDED, FORMAT_VERSION)], [encode(Envelope(Remove("/a"), 1))]]
    assert state_hash(apply(tmp_path / "1", entries, old)) != state_hash(apply(tmp_path / "2", entries, new))
