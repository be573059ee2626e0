"""The tree of files that every machine begins with: a small Debian as an administrator gets it, before raftfs.

It is made once, by debootstrap, and kept under a name that says what is in it. A machine lays an overlay over it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from raftfs.testing.nemesis.machine import CannotRun, call

CACHE: Final = Path("/var/cache/raftfs-deploy-test")
SUITE: Final = "bookworm"
PACKAGES: Final = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "python3-venv",
    "sudo",
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "zstd",
)
ADMINISTRATOR: Final = "admin"
_MAKE_S_MAX: Final = 900.0
_PREPARE: Final = f"""
set -eu
useradd --create-home --shell /bin/bash {ADMINISTRATOR}
echo '{ADMINISTRATOR} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{ADMINISTRATOR}
rm -f /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id
printf 'PasswordAuthentication no\\nUseDNS no\\nMaxStartups 100\\n' > /etc/ssh/sshd_config.d/test.conf
mkdir -p /var/log/journal /var/lib/raftfs
: > /etc/resolv.conf
: > /etc/default/locale
systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer
rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin
"""


def tree() -> Path:
    """Where the tree is; it is made if it is not there. Needs root, and Debian's packages. Raises CannotRun."""
    content = repr((SUITE, PACKAGES, _PREPARE))
    wanted = CACHE / f"{SUITE}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be making it
        if not wanted.exists():
            _make(wanted)
    return wanted


def _make(wanted: Path) -> None:
    for old in CACHE.glob(f"{SUITE}-*.new"):
        shutil.rmtree(old)
    new = wanted.with_name(f"{wanted.name}.new")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(new), *_mirror()]
    log = wanted.with_name(f"{wanted.name}.log")
    with log.open("wb") as out:
        try:
            subprocess.run(command, stdout=out, stderr=out, timeout=_MAKE_S_MAX, check=True)
            subprocess.run(["chroot", str(new), "/bin/sh", "-c", _PREPARE], stdout=out, stderr=out, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise CannotRun(f"no Debian for the machines: {error}\n{end}") from error
    os.sync()
    new.rename(wanted)


def _mirror() -> list[str]:
    """From where this machine gets the suite itself, if it does; else it is debootstrap's own choice."""
    try:
        lines = call("apt-get", "indextargets", "--format", "$(CODENAME) $(SITE)").splitlines()
    except CannotRun:
        return []
    return [line.split()[1] for line in lines if line.split()[0] == SUITE][:1]
