# What importing pycolmap must not change.
import ast
import subprocess
import sys

from tests.test_import_order import lines_of
from tests.test_imports import ROOT, modules

HANDLED = """
import os, signal, sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
from scenes.bindings import pycolmap
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_sigterm_stays_with_its_handler():
    done = subprocess.run([sys.executable, "-c", HANDLED], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_thread_may_import_it():
    code = "import threading, importlib\n" + (
        "t = threading.Thread(target=importlib.import_module, args=['scenes.bindings'])\n"
        "t.start(); t.join(); import sys; assert 'scenes.bindings' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_nothing_else_imports_it():
    trees = {name: ast.parse(file.read_text()) for name, file in modules().items()}
    direct = {name for name, tree in trees.items() if lines_of(tree, "pycolmap")}
    assert {name for name in direct if not name.startswith("tests")} == {"scenes.bindings"}
