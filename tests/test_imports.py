# The architecture as rules on import statements, see docs/architecture.md. Imports inside functions
# and under TYPE_CHECKING count as well.
import ast
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

FOLDERS = {
    *("benchmarks", "checkpoints", "data", "docs", "evaluation", "examples", "findings", "fixers"),
    *("gen_data", "generators", "models", "reconstruction", "runtime", "scenes", "scripts"),
    *("splats", "tests", "training", "triplets"),
}
SCRIPTS = {"VAR_train", "VAE_train", "VQVAE_train", "test_tile", "test_varsr"}
# Besides these and every __main__.py nothing is an entry point.
ENTRIES = SCRIPTS | {"gen_data.gen_data", "gen_data.gen_data_json", "data.gen_data_json"}
FORWARDS = {("data.gen_data_json", "gen_data.gen_data_json")}  # the original's place of a command

# Which packages a package imports, besides runtime and evaluation, which all but models may use.
DIRECTIONS = {
    "scenes": set(),
    "splats": {"scenes"},
    "triplets": {"scenes"},
    "models": set(),
    "fixers": {"models", "scenes", "triplets"},
    "generators": {"models", "fixers", "scenes", "splats", "triplets"},
    "reconstruction": {"generators", "fixers", "splats", "scenes"},
    "gen_data": {"reconstruction", "splats", "scenes", "triplets"},
    "training": {"models", "fixers", "scenes", "triplets"},
    "examples": {
        "reconstruction",
        "generators",
        "fixers",
        "splats",
        "scenes",
        "models",
        "training",
    },
    "benchmarks": {"models", "fixers", "generators", "reconstruction", "gen_data", "training"}
    | {"splats", "scenes", "triplets"},
}
ALLOWED = {room: others | {"runtime", "evaluation"} for room, others in DIRECTIONS.items()}
ALLOWED |= {"runtime": set(), "evaluation": {"runtime"}, "models": {"runtime"}}

# In models/ these are shared by systems; every other module or folder is a system of its own.
SHARED_MODELS = {"layers", "var", "vqvae", "diffusion"}
CHECKPOINTS = "checkpoints"  # its registry knows all systems
PLAIN = {"models.checkpoints.io"}  # files of tensors, of whatever system


@cache
def modules() -> dict[str, Path]:
    """All Python files of the project by module name; a package's __init__.py by the package's."""
    files = [*ROOT.glob("*.py"), *(f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py"))]
    named = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return named


@cache
def imports(module: str) -> frozenset[str]:
    """The project's modules that a module names in its import statements."""
    names = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} uses a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in modules() else node.module)
    return frozenset(name for name in names if name in modules() and name != module)


@cache
def edges() -> tuple[tuple[str, str], ...]:
    """(importing module, imported module) of the whole project without its tests."""
    return tuple(
        (module, other)
        for module in sorted(modules())
        if room(module) != "tests"
        for other in sorted(imports(module))
    )


def room(module: str) -> str:
    return module.split(".")[0]


def test_the_walk_sees_the_project():
    assert len(modules()) > 200 and len(edges()) > 500
    assert ("runtime.command", "runtime.threads") in edges()
    assert ("scenes", "scenes.loading") in edges()  # under TYPE_CHECKING
    assert ("scenes.__main__", "scenes.loading") in edges()  # inside a function


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs git to list tracked files")
def test_top_level_folders_are_those_of_the_architecture():
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    folders = {file.split("/")[0] for file in tracked if "/" in file and file[0] != "."}
    assert folders <= FOLDERS, f"new top-level folders: {sorted(folders - FOLDERS)}"


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_rooms_import_in_one_direction(name):
    wrong = [
        f"{module} imports {other}"
        for module, other in edges()
        if room(module) == name and room(other) not in ALLOWED[name] | {name}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle():
    """Repeatedly remove modules that import none of the rest; what remains is on a circle."""
    graph = {module: set(imports(module)) for module in modules()}
    while leaves := {module for module, others in graph.items() if not others & graph.keys()}:
        graph = {module: graph[module] for module in graph.keys() - leaves}
    assert not graph, f"import circle among {sorted(graph)}"


def test_scenes_does_not_import_the_procedural_scenes():
    inner = "scenes.procedural"
    wrong = [
        f"{module} imports {other}"
        for module, other in edges()
        if room(module) == "scenes" and not module.startswith(inner) and other.startswith(inner)
    ]
    assert not wrong, "\n".join(wrong)


def system(module: str) -> str | None:
    """The system in models/ that a module belongs to, None if it is shared or not in models/."""
    parts = module.split(".")
    if parts[0] != "models" or len(parts) == 1 or parts[1] in SHARED_MODELS | {CHECKPOINTS}:
        return None
    return parts[1]


def test_systems_in_models_do_not_import_each_other():
    wrong = [
        f"{module} imports {other}"
        for module, other in edges()
        if room(module) == "models"
        and not module.startswith(f"models.{CHECKPOINTS}")
        and system(other) not in (None, system(module))
    ]
    assert not wrong, "\n".join(wrong)


def test_the_training_engine_knows_no_system():
    """training/*.py imports neither networks nor training/<system>/, and systems stay apart."""

    def trained(module: str) -> str | None:
        parts = module.split(".")
        inside = parts[0] == "training" and len(parts) > 1
        return parts[1] if inside and (ROOT / "training" / parts[1]).is_dir() else None

    wrong = [
        f"{module} imports {other}"
        for module, other in edges()
        if room(module) == "training"
        and (
            trained(other) not in (None, trained(module))
            or (trained(module) is None and room(other) == "models" and other not in PLAIN)
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_an_entry_point():
    wrong = [
        f"{module} imports {other}"
        for module, other in edges()
        if (other in ENTRIES or other.endswith("__main__") or room(other) in ("examples", "tests"))
        and room(module) != room(other)
        and (module, other) not in FORWARDS
    ]
    assert not wrong, "\n".join(wrong)
    outside = [
        f"{module} imports {other}"
        for module, other in edges()
        if room(other) == "benchmarks" and room(module) != "benchmarks"
    ]
    assert not outside, "\n".join(outside)
