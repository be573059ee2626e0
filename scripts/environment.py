"""Make a virtual environment in a folder, or leave it alone if it is still right: for the Makefile.

    python3 scripts/environment.py FOLDER [--clear-on-change PATH ...] -- PIP-INSTALL-ARGUMENT ...

A virtual environment hard-codes its own path, so it breaks when the clone is moved. A stamp in the folder holds
everything it was made from (path, interpreter, arguments, pyproject.toml); if that differs, the folder is removed
and made anew. The stamp is written last, so an interrupted installation is not taken for a finished one.

Nothing newer than Python 3.6 is used here, so that an old ``python3`` gets a sentence and not a syntax error.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    arguments = _arguments()
    _check_interpreter()
    folder = os.path.abspath(arguments.folder)
    stamp_file = os.path.join(folder, "made-from")
    stamp = _stamp(folder, arguments.install)
    if _read(stamp_file) == stamp:
        return
    for path in [folder, *arguments.clear_on_change]:
        shutil.rmtree(path, ignore_errors=True)
    _say(f"making {os.path.relpath(folder, ROOT)} (the first time this takes about a minute)")
    _run(sys.executable, "-m", "venv", folder)
    python = os.path.join(folder, "bin", "python")
    # Twice quiet: what pip says about indexes and versions is not for whoever runs make; errors are still shown.
    _run(python, "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check", *arguments.install)
    with open(stamp_file, "w") as file:
        file.write(stamp)


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--clear-on-change", action="append", default=[], metavar="PATH")
    parser.add_argument("install", nargs="+", help="arguments of pip install, after --")
    return parser.parse_args()


def _check_interpreter():
    found = f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
    oldest = ".".join(map(str, OLDEST))
    if sys.version_info < OLDEST:
        _fail(f"{found}; raftfs needs {oldest} or newer. Name another one: make PYTHON=python{oldest} ...")
    if not all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")):
        _fail(f"{found} and cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv")


def _stamp(folder, install):
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = hashlib.sha256(file.read()).hexdigest()
    interpreter = os.path.realpath(sys.executable) + " " + sys.version.replace("\n", " ")
    return "\n".join([folder, interpreter, " ".join(install), project, ""])


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _run(*command):
    code = subprocess.call(command, cwd=ROOT)
    if code:
        _fail(f"failed with exit code {code}: {' '.join(command)}")


def _say(message):
    sys.stdout.write(f"raftfs: {message}\n")
    sys.stdout.flush()


def _fail(message):
    sys.stderr.write(f"raftfs: {message}\n")
    sys.exit(1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        _fail("interrupted; the next make begins anew")
