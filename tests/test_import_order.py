# numpy or torch is loaded before pycolmap: otherwise pycolmap 4.2 and Pillow 13 do not get along.
# Alphabetical imports see to it, but only where numpy or torch is imported at all.
import ast
import subprocess
import sys
from functools import cache

import pytest

from tests.test_imports import ENTRIES, ROOT, imports, modules, room

BEFORE = ("numpy", "torch")
WATCH = """
import builtins, importlib, os, sys
import numpy, pycolmap, torch

original = builtins.__import__

def watch(name, globals=None, locals=None, fromlist=(), level=0):
    package = name.split(".")[0] if level == 0 else ""
    if package in ("numpy", "torch", "pycolmap") and globals:
        if os.path.abspath(globals.get("__file__", "")).startswith(sys.argv[1]):
            os._exit(package == "pycolmap")
    return original(name, globals, locals, fromlist, level)

for entry in sys.argv[2:]:
    name, *inner = entry.split(",")
    child = os.fork()
    if child == 0:
        builtins.__import__ = watch
        for module in (name, *inner):
            importlib.import_module(module)
        os._exit(2)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def lines_of(tree: ast.Module, *packages: str) -> list[int]:
    """Lines of the statements that import one of the packages or something from it."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        if any(name.split(".")[0] in packages for name in names):
            lines.append(node.lineno)
    return lines


@cache
def users_of_pycolmap() -> set[str]:
    """All modules that import it."""
    trees = {module: ast.parse(file.read_text()) for module, file in modules().items()}
    return {module for module, tree in trees.items() if lines_of(tree, "pycolmap")}


def reaches_pycolmap(module: str) -> bool:
    """Whether a module imports pycolmap through others, at its start or in its functions."""
    seen, todo = set(), [module]
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += imports(module)
    return not seen.isdisjoint(users_of_pycolmap())


@pytest.mark.parametrize("module", sorted(users_of_pycolmap()))
def test_a_module_imports_numpy_or_torch_before_pycolmap(module):
    tree = ast.parse(modules()[module].read_text())
    before, pycolmap = lines_of(tree, *BEFORE), lines_of(tree, "pycolmap")
    assert before and min(before) < min(pycolmap), f"import numpy before pycolmap in {module}"


def test_every_entry_point_loads_numpy_or_torch_before_pycolmap():
    """All modules that it names, also in its functions, in one process each."""
    named = {m for m in modules() if m in ENTRIES or m.endswith("__main__")}
    entries = {m for m in modules() if room(m) in ("examples", "benchmarks")} | named
    entries = sorted(m for m in entries if reaches_pycolmap(m))
    assert {"scenes.__main__", "gen_data.gen_data"} < set(entries) and len(entries) > 10
    commands = [",".join((m, *sorted(imports(m)))) for m in entries]
    done = subprocess.run(
        [sys.executable, "-c", WATCH, str(ROOT), *commands],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    codes = dict(line.split() for line in done.stdout.splitlines())
    assert done.returncode == 0 and codes.keys() == set(entries), done.stderr[-2000:]
    assert set(codes.values()) == {"0"}, [name for name, code in codes.items() if code != "0"]
