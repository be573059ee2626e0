"""The house rules that a machine can check, each proved on a planted violation.

A rule is a function from a parsed source file to complaints. The first test runs every rule over the work tree; the
second feeds each rule a violation that it must see and the lawful neighbour that it must let pass.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("raftfs", "cli")
ALL_CODE = (*PRODUCT, "tests", "bench", "scripts", "docs")

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
PACKAGE_STORY_CHARACTERS_MIN = 200


@dataclass(frozen=True)
class Source:
    """One Python file. ``name`` is its path from the root of the work tree."""

    name: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.name)

    def is_in(self, *folders: str) -> bool:
        return self.name.split("/")[0] in folders


Rule = Callable[[Source], Iterator[str]]


def one_module_owns_fsync(source: Source) -> Iterator[str]:
    """After a failed fsync the process must end; only raftfs/fsync.py knows how."""
    if not source.is_in(*PRODUCT) or source.name == "raftfs/fsync.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in ("fsync", "fdatasync") and _root(node) == "os":
            yield f"{source.name}:{node.lineno}: os.{node.attr} outside raftfs/fsync.py"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            for name in node.names:
                if name.name in ("fsync", "fdatasync", "*"):
                    yield f"{source.name}:{node.lineno}: imports {name.name} from os outside raftfs/fsync.py"


def nothing_is_pickled(source: Source) -> Iterator[str]:
    """Reading a pickle runs code of whoever wrote it, so neither disk nor network may carry one."""
    if not source.is_in(*PRODUCT):
        return
    for node in ast.walk(source.tree):
        for module in _imported_modules(node):
            if module.split(".")[0] in ("pickle", "cloudpickle", "dill", "marshal", "shelve"):
                yield f"{source.name}:{_line(node)}: imports {module}"


def own_code_is_not_patched(source: Source) -> Iterator[str]:
    """A test that replaces parts of our code tests something else; pass a fake in instead."""
    if not source.is_in("tests", "bench"):
        return
    own = _names_from_own_packages(source.tree)
    for node in ast.walk(source.tree):
        if any(f"{module}.".startswith(("mock.", "unittest.mock.")) for module in _imported_modules(node)):
            yield f"{source.name}:{_line(node)}: imports a mocking library"
        if isinstance(node, ast.Call) and _root(node.func) == "monkeypatch" and node.args:
            target = node.args[0]
            is_own_text = isinstance(target, ast.Constant) and str(target.value).startswith(("raftfs.", "raftfs_cli."))
            is_own_name = isinstance(target, ast.Name | ast.Attribute) and _root(target) in own
            if is_own_text or is_own_name:
                yield f"{source.name}:{node.lineno}: monkeypatch changes our own code"


def files_are_short(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{source.name}: {lines} lines, at most {FILE_LINES_MAX}"


def functions_fit_a_screen(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{source.name}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"


def packages_tell_their_story(source: Source) -> Iterator[str]:
    """What comes in, what goes out, what may never happen here: a paragraph in each package's ``__init__``."""
    if not source.is_in(*PRODUCT) or not source.name.endswith("/__init__.py"):
        return
    story = ast.get_docstring(source.tree) or ""
    if len(story) < PACKAGE_STORY_CHARACTERS_MIN:
        yield f"{source.name}: the docstring has {len(story)} characters, at least {PACKAGE_STORY_CHARACTERS_MIN}"


def limits_name_their_unit(source: Source) -> Iterator[str]:
    """``_MAX``, ``_MIN`` and ``_DEFAULT`` aside, a limit's name holds a unit (BYTES, MS, S) or the plural it counts."""
    if source.name != "raftfs/limits.py":
        return
    for node in source.tree.body:
        if isinstance(node, ast.Assign):
            yield f"{source.name}:{node.lineno}: a limit is declared Final"
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            words = node.target.id.split("_")
            has_unit = any(word in ("BYTES", "MS", "S") or (word.endswith("S") and len(word) > 3) for word in words)
            if not has_unit:
                yield f"{source.name}:{node.lineno}: {node.target.id} names no unit"


RULES: tuple[Rule, ...] = (
    one_module_owns_fsync,
    nothing_is_pickled,
    own_code_is_not_patched,
    files_are_short,
    functions_fit_a_screen,
    packages_tell_their_story,
    limits_name_their_unit,
)


def _root(node: ast.expr) -> str | None:
    """``a`` of ``a.b.c``."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def _imported_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return []


def _names_from_own_packages(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = _imported_modules(node)
            if module and module[0].split(".")[0] in ("raftfs", "raftfs_cli"):
                names |= {(name.asname or name.name).split(".")[0] for name in node.names}
    return names


def _sources() -> list[Source]:
    paths = [path for folder in ALL_CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    return [Source(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_work_tree_keeps_the_rule(rule: Rule) -> None:
    complaints = [complaint for source in _sources() for complaint in rule(source)]
    assert not complaints, "\n" + "\n".join(complaints)


def _function(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


VIOLATIONS = [
    (one_module_owns_fsync, "raftfs/chunks/store.py", "import os\nos.fsync(3)\n"),
    (one_module_owns_fsync, "cli/main.py", "import os\nsync = os.fdatasync\n"),
    (one_module_owns_fsync, "raftfs/state/machine.py", "from os import fsync as f\n"),
    (nothing_is_pickled, "raftfs/consensus/engine.py", "import pickle\n"),
    (nothing_is_pickled, "raftfs/client/core.py", "def f():\n    from pickle import loads\n"),
    (own_code_is_not_patched, "tests/x.py", "from unittest.mock import patch\n"),
    (own_code_is_not_patched, "tests/x.py", "from unittest import mock\n"),
    (
        own_code_is_not_patched,
        "tests/x.py",
        "def t(monkeypatch):\n    monkeypatch.setattr('raftfs.paths.split', None)\n",
    ),
    (
        own_code_is_not_patched,
        "tests/x.py",
        "from raftfs import paths\ndef t(monkeypatch):\n    monkeypatch.setattr(paths, 'split', None)\n",
    ),
    (files_are_short, "raftfs/x.py", "\n" * (FILE_LINES_MAX + 1)),
    (functions_fit_a_screen, "raftfs/x.py", _function(FUNCTION_LINES_MAX + 1)),
    (packages_tell_their_story, "raftfs/chunks/__init__.py", '"""Chunks."""\n'),
    (packages_tell_their_story, "raftfs/chunks/__init__.py", ""),
    (limits_name_their_unit, "raftfs/limits.py", "WAIT_MAX: Final = 3\n"),
    (limits_name_their_unit, "raftfs/limits.py", "WAIT_S_MAX = 3\n"),
]

NEIGHBOURS = [
    (one_module_owns_fsync, "raftfs/fsync.py", "import os\nos.fsync(3)\n"),
    (one_module_owns_fsync, "raftfs/chunks/store.py", "from raftfs import fsync\nfsync.sync_data(3, 'x')\n"),
    (nothing_is_pickled, "tests/client/test_pickle.py", "import pickle\n"),
    (own_code_is_not_patched, "tests/x.py", "def t(monkeypatch):\n    monkeypatch.setenv('RAFTFS_ENDPOINTS', 'x')\n"),
    (
        own_code_is_not_patched,
        "tests/x.py",
        "import os\ndef t(monkeypatch):\n    monkeypatch.setattr(os, 'fsync', None)\n",
    ),
    (files_are_short, "raftfs/x.py", "\n" * FILE_LINES_MAX),
    (functions_fit_a_screen, "raftfs/x.py", _function(FUNCTION_LINES_MAX)),
    (packages_tell_their_story, "raftfs/chunks/__init__.py", f'"""{"story " * 40}"""\n'),
    (packages_tell_their_story, "tests/chunks/__init__.py", ""),
    (limits_name_their_unit, "raftfs/limits.py", "WAIT_S_MAX: Final = 3.0\nUPLOADS_AT_ONCE_MAX: Final = 8\n"),
]


@pytest.mark.parametrize(("rule", "name", "text"), VIOLATIONS)
def test_rule_sees_a_planted_violation(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Source(name, text)))


@pytest.mark.parametrize(("rule", "name", "text"), NEIGHBOURS)
def test_rule_lets_the_lawful_neighbour_pass(rule: Rule, name: str, text: str) -> None:
    assert not list(rule(Source(name, text)))


def test_every_rule_is_proved() -> None:
    assert {rule for rule, _, _ in VIOLATIONS} == set(RULES) == {rule for rule, _, _ in NEIGHBOURS}
