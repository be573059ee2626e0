"""The phases of the trial, in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from raftfs.versions import FORMAT_VERSION
from tests.system.other_release import NEXT_FORMAT

from .controller import Recap
from .trial import Trial, Wrong
from .wheels import SECOND_VERSION

SPARE: Final = "n4"
_NOBODY: Final = "198.18.7.99"
_TRACES: Final = "/opt/raftfs /etc/raftfs /etc/systemd/system/raftfs-node.service"


async def mistakes(trial: Trial) -> None:
    """Wrong inventories are refused, each with a reason that fits, before any machine is touched."""
    address = trial.fleet.machines["n1"].address
    wrong: list[tuple[dict[str, str], str]] = [
        ({"raftfs_id": "n1"}, "have the same id"),
        ({"raftfs_address": address}, "have the same peer"),
        ({"raftfs_id": "not an id"}, "is no id"),
        ({"raftfs_address": _NOBODY}, "there is no way to"),
    ]
    for values, reason in wrong:
        _expect_refused(await trial.play("site.yml", refused=True, hosts={"n2": values}), str(values), reason)
    few = await trial.play("site.yml", refused=True, nodes=trial.members[:2])
    _expect_refused(few, "two members", "use an odd number")
    await _expect_no_traces(trial)


async def check_before(trial: Trial) -> None:
    """``--check`` on bare machines says what would be done, and does nothing."""
    recap = await trial.play("site.yml", "--check")
    if not recap.touched:
        raise Wrong("--check before the first deploy says that nothing would change")
    await _expect_no_traces(trial)


async def first_deploy(trial: Trial) -> None:
    """From bare machines to a cluster that serves. From here on clients work."""
    await trial.play("site.yml")
    await trial.begin_traffic()
    await trial.more()


async def second_run(trial: Trial) -> None:
    """The same again changes nothing."""
    recap = await trial.play("site.yml")
    if recap.touched:
        raise Wrong(f"the second run changed something: {recap.touched}")


async def check_after(trial: Trial) -> None:
    """``--check`` on what is right finds nothing to do."""
    recap = await trial.play("site.yml", "--check")
    if recap.touched:
        raise Wrong(f"--check would change something: {recap.touched}")


async def upgrade(trial: Trial) -> None:
    """Another release, one member after the other; the last one's restart switches the format."""
    await _expect_formats(trial, FORMAT_VERSION)
    trial.controller.variables["raftfs_wheel"] = str(trial.wheels.second)
    await trial.play("rolling_upgrade.yml")
    for name in [*trial.members, *trial.frontends]:
        said = await asyncio.to_thread(trial.machine(name).run, "/opt/raftfs/current/bin/raftfs --version")
        if SECOND_VERSION not in said.stdout:
            raise Wrong(f"{name} has {said.stdout.strip()}, not {SECOND_VERSION}")
    await _expect_formats(trial, NEXT_FORMAT)
    await trial.more()


async def power_off(trial: Trial) -> None:
    """The machine of the leader loses its power. The others go on; it comes back, and has everything."""
    leader = await trial.leader()
    await asyncio.to_thread(trial.machine(leader).cut)
    await trial.more()
    if await trial.leader() == leader:
        raise Wrong(f"{leader}, whose machine has no power, is said to lead")
    await asyncio.to_thread(trial.fleet.boot, [trial.places[leader]])
    await _settled(trial)


async def replace(trial: Trial) -> None:
    """A machine is gone for good, and a new one takes its place."""
    leader = await trial.leader()
    gone = next(name for name in trial.members if name != leader)
    await asyncio.to_thread(trial.machine(gone).cut)
    await trial.more()
    await asyncio.to_thread(trial.fleet.boot, [SPARE])
    trial.place(gone, SPARE)
    trial.cluster.emptied[gone] += 1
    trial.working.renew()
    await trial.play("replace_node.yml", variables={"raftfs_replace": gone})
    await _settled(trial)
    await second_run(trial)


async def rotate(trial: Trial) -> None:
    """A new CA, and new certificates for all, while the clients go on. In the end the old CA is worth nothing."""
    before = (trial.trust.folder / "ca.crt").read_text()
    following = asyncio.create_task(_follow(trial))
    try:
        await trial.play("rotate_certs.yml", variables={"raftfs_tls_new_ca": True})
    finally:
        following.cancel()
    if (trial.trust.folder / "ca.crt").read_text() == before:
        raise Wrong("the CA is still the old one")
    await trial.more()


async def doctor(trial: Trial) -> None:
    """Nothing is found that is not well."""
    await trial.play("doctor.yml")


async def _follow(trial: Trial) -> None:
    """Whoever the administrator trusts, the clients trust."""
    while True:
        if await asyncio.to_thread(trial.trust.refresh):
            trial.working.renew()
        await asyncio.sleep(0.2)


async def _settled(trial: Trial) -> None:
    """Every member has a vote, and has everything that was there when this was called, while others write more."""
    wanted = sorted(trial.members)

    async def highest() -> int:
        return max((one["applied_index"] for one in (await trial.working.watch.statuses()).values()), default=0)

    async def there() -> bool:
        found = await trial.working.watch.statuses()
        return sorted(found) == wanted and all(
            sorted(member["id"] for member in status["members"] if member["role"] != "learner") == wanted
            and all((member["complete_index"] or 0) >= goal for member in status["members"])
            for status in found.values()
        )

    goal = int(await trial.until("somebody says how far the cluster is", highest))
    await trial.until(f"every member votes, and has everything up to entry {goal}", there)


async def _expect_formats(trial: Trial, wanted: int) -> None:
    async def there() -> bool:
        found = await trial.working.watch.statuses()
        return len(found) == len(trial.members) and {status["format"] for status in found.values()} == {wanted}

    await trial.until(f"format {wanted} everywhere", there)


def _expect_refused(recap: Recap, what: str, reason: str) -> None:
    """Raises Wrong if a run was not refused for this reason, or changed something before."""
    if reason not in recap.said:
        raise Wrong(f"{what} was refused, but not because of {reason!r}:\n{recap.said[-2000:]}")
    if recap.touched:
        raise Wrong(f"{what} was refused after something was changed: {recap.touched}")


async def _expect_no_traces(trial: Trial) -> None:
    for name in [*trial.members, *trial.frontends]:
        found = await asyncio.to_thread(
            trial.machine(name).run, f"ls -d {_TRACES} 2>/dev/null; getent passwd raftfs", check=False
        )
        if found.stdout:
            raise Wrong(f"{name} was touched: {found.stdout}")


PHASES: Final[list[tuple[str, Callable[[Trial], Awaitable[None]]]]] = [
    ("mistakes in the inventory", mistakes),
    ("--check on bare machines", check_before),
    ("first deploy", first_deploy),
    ("second run", second_run),
    ("--check", check_after),
    ("rolling upgrade", upgrade),
    ("power off of the leader's machine", power_off),
    ("replacement of a machine", replace),
    ("rotation of all certificates", rotate),
    ("doctor", doctor),
]
