# The names and docstrings of the project: the field's words, and every public function documented.
import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    *("benchmarks", "data", "evaluation", "examples", "fixers", "gen_data", "generators", "models"),
    *("reconstruction", "runtime", "scenes", "splats", "tests", "training", "triplets"),
}
# Participles of a private vocabulary: they say neither what a value is nor what a function does.
FORBIDDEN = {
    *("told", "kept", "made", "found", "chosen", "lost", "checked"),
    *("players", "coins", "deaf", "AGREES"),
}
DOCUMENTED = 0.95  # share of public functions, methods and classes with a docstring, by folder


def trees(folder: str) -> list[tuple[Path, ast.Module]]:
    """The parsed Python files of a top-level folder ("." for the entry scripts)."""
    files = ROOT.glob("*.py") if folder == "." else (ROOT / folder).rglob("*.py")
    return [(file.relative_to(ROOT), ast.parse(file.read_text())) for file in sorted(files)]


def identifiers(node: ast.AST) -> list[str]:
    """The names that a node defines or uses; an imported one counts where it is defined."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.arg | ast.keyword):
        return [node.arg or ""]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [node.attr] if isinstance(node, ast.Attribute) else []


def public(body: list[ast.stmt], prefix: str = "") -> list[tuple[str, ast.AST]]:
    """Public functions and classes of a module or class body, and the public methods."""
    named = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            named.append((prefix + node.name, node))
            if isinstance(node, ast.ClassDef):
                named += public(node.body, f"{prefix}{node.name}.")
    return named


@pytest.mark.parametrize("folder", sorted(FOLDERS | {"."}))
def test_identifiers_are_the_field_s_words(folder):
    wrong = Counter(
        f"{file}: {name}"
        for file, tree in trees(folder)
        for node in ast.walk(tree)
        for name in identifiers(node)
        if name.strip("_") in FORBIDDEN
    )
    assert not wrong, "rename these: " + ", ".join(sorted(wrong))


@pytest.mark.parametrize("folder", sorted(FOLDERS - {"tests"}))
def test_public_functions_and_classes_have_docstrings(folder):
    named = [(f"{file} {name}", n) for file, tree in trees(folder) for name, n in public(tree.body)]
    missing = [name for name, node in named if ast.get_docstring(node) is None]
    assert len(missing) <= (1 - DOCUMENTED) * len(named), "undocumented: " + ", ".join(missing)
