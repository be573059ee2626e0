"""Where the administrator sits: runs the playbooks of ``deploy/`` as a person would, and keeps what they said."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .fleet import Fleet
from .machines import inventory
from .wheels import ROOT

DEPLOY: Final = ROOT / "deploy"
_PLAYBOOK_S_MAX: Final = 900.0
_SHOWN_LINES: Final = 60
_RECAP: Final = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


Hosts = Mapping[str, Mapping[str, Any]]
"""Variables of single machines."""


class PlaybookFailed(Exception):
    """A playbook ended otherwise than it should have."""


@dataclass(frozen=True)
class Recap:
    """What a playbook came to. ``touched``: machines on which something is reported as changed."""

    code: int
    said: str

    @property
    def changed(self) -> dict[str, int]:
        return {name: int(changed) for name, _, changed, _, _ in _RECAP.findall(self.said)}

    @property
    def touched(self) -> dict[str, int]:
        return {name: count for name, count in self.changed.items() if count}


class Controller:
    """``folder`` gets an inventory and the output of every run. ``variables`` are those of all machines."""

    def __init__(self, fleet: Fleet, folder: Path, variables: Mapping[str, Any]) -> None:
        self._fleet, self._folder, self.variables = fleet, folder, dict(variables)
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)

    async def play(
        self,
        playbook: str,
        nodes: Sequence[str],
        frontends: Sequence[str],
        *options: str,
        hosts: Hosts | None = None,
        variables: Mapping[str, Any] | None = None,
        refused: bool = False,
    ) -> Recap:
        """Run a playbook on these machines. ``hosts``: variables of single machines. Raises PlaybookFailed if it fails,
        or, with ``refused``, if it does not."""
        self._count += 1
        name = f"{self._count:02}-{playbook.removesuffix('.yml')}"
        where = self._folder / f"{name}.inventory.yml"
        where.write_text(self._inventory(nodes, frontends, hosts or {}))
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(where),
            "--diff",
            str(DEPLOY / playbook),
        ]
        if variables:
            command += ["--extra-vars", json.dumps(variables)]
        log = self._folder / f"{name}.log"
        code = await self._run([*command, *options], log)
        said = log.read_text(errors="replace")
        if code is None or (code != 0) != refused:
            end = "\n".join(said.splitlines()[-_SHOWN_LINES:])
            how = f"not done in {_PLAYBOOK_S_MAX:g} s" if code is None else f"exit code {code}"
            raise PlaybookFailed(f"{playbook} {' '.join(options)}: {how}; {log}\n{end}")
        return Recap(code, said)

    async def _run(self, command: Sequence[str], log: Path) -> int | None:
        """The exit code; None if it had to be ended. Whatever ends this ends the program as well."""
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *self._fleet.inside,
                *command,
                cwd=DEPLOY,
                env=self._environment(log),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PLAYBOOK_S_MAX):
                        await process.wait()
                return process.returncode
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    def _inventory(self, nodes: Sequence[str], frontends: Sequence[str], hosts: Hosts) -> str:
        addresses = {name: machine.address for name, machine in self._fleet.machines.items()}
        made = json.loads(inventory(addresses, self._fleet.ssh_config, nodes, frontends))
        made["all"]["vars"] |= self.variables
        for group in made["all"]["children"].values():
            for name, values in group["hosts"].items():
                values |= hosts.get(name, {})
        return json.dumps(made, indent=2)

    def _environment(self, log: Path) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        home = str(self._folder / "ansible")
        return own | {
            "ANSIBLE_CONFIG": str(DEPLOY / "ansible.cfg"),
            "ANSIBLE_HOME": home,
            "ANSIBLE_LOG_PATH": str(log.with_suffix(".timed")),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{own.get('PATH', '')}",
        }
