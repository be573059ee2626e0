"""Make a virtual environment in a folder, or leave it alone if it is still right: for the Makefile.

    python3 scripts/environment.py FOLDER [--clear-on-change PATH ...] -- PIP-INSTALL-ARGUMENT ...

A virtual environment hard-codes its own path, so it breaks when the clone is moved. A stamp in the folder holds
everything it was made from (path, interpreter, arguments, pyproject.toml); if that differs, the folder is removed
and made anew. The stamp is written last, so an interrupted installation is not taken for a finished one.

This file runs on whatever ``python3`` is, so that an old one gets a sentence and not a syntax error.
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
    for path in [folder] + arguments.clear_on_change:
        shutil.rmtree(path, ignore_errors=True)
    _say("making %s (the first time this takes about a minute)" % os.path.relpath(folder, ROOT))
    _run(sys.executable, "-m", "venv", folder)
    python = os.path.join(folder, "bin", "python")
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments.install)
    with open(stamp_file, "w") as file:
        file.write(stamp)


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--clear-on-change", action="append", default=[], metavar="PATH")
    parser.add_argument("install", nargs="+", help="arguments of pip install, after --")
    return parser.parse_args()


def _check_interpreter():
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        _fail("%s is Python %s; raftfs needs %s or newer. Try: make PYTHON=/path/to/python%s ..."
              % (sys.executable, version, oldest, oldest))  # fmt: skip
    if not all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")):
        _fail("%s (Python %s) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"
              % (sys.executable, version))  # fmt: skip


def _stamp(folder, install):
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = hashlib.sha256(file.read()).hexdigest()
    interpreter = "%s %s" % (os.path.realpath(sys.executable), sys.version.replace("\n", " "))
    return "\n".join([folder, interpreter, " ".join(install), project]) + "\n"


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _run(*command):
    code = subprocess.call(command, cwd=ROOT)
    if code:
        _fail("failed with exit code %d: %s" % (code, " ".join(command)))


def _say(message):
    sys.stdout.write("raftfs: %s\n" % message)
    sys.stdout.flush()


def _fail(message):
    sys.stderr.write("raftfs: %s\n" % message)
    sys.exit(1)


if __name__ == "__main__":
    main()
