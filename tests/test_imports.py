# Imports between the top-level folders go one way; this walks every import statement.
import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = {"VAR_train", "VAE_train", "VQVAE_train", "test_tile", "test_varsr"}
ENTRIES = {"examples", "benchmarks", "tests"} | SCRIPTS  # nothing imports these
ALLOWED = {
    "runtime": set(),
    "evaluation": {"runtime"},
    "models": {"runtime"},
    "scenes": {"runtime", "evaluation"},
    "splats": {"runtime", "scenes", "evaluation"},
    "triplets": {"runtime", "scenes", "evaluation"},
    "fixers": {"runtime", "models", "scenes", "triplets", "evaluation"},
    "generators": {"runtime", "models", "scenes", "splats", "triplets", "fixers", "evaluation"},
    "reconstruction": {"runtime", "scenes", "splats", "fixers", "generators", "evaluation"},
    "gen_data": {"runtime", "scenes", "splats", "triplets", "reconstruction", "evaluation"},
    "training": {"runtime", "models", "triplets", "fixers", "scenes", "evaluation"},
    "examples": {"runtime", "scenes", "splats", "fixers", "generators", "reconstruction"}
    | {"evaluation"},
    "benchmarks": {"runtime", "scenes", "splats", "triplets", "fixers", "generators", "models"}
    | {"reconstruction", "gen_data", "training", "evaluation"},
}


def imported_rooms(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} uses a relative import"
            rooms.add(node.module.split(".")[0])
    return rooms & (set(ALLOWED) | ENTRIES)


def test_imports_go_one_way():
    files = [file for room in ALLOWED for file in (ROOT / room).rglob("*.py")]
    assert len(files) > 10
    for file in files:
        room = file.relative_to(ROOT).parts[0]
        wrong = imported_rooms(file) - ALLOWED[room] - {room}
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


def test_entry_scripts_import_no_entry():
    for script in SCRIPTS:
        file = ROOT / f"{script}.py"
        wrong = imported_rooms(file) & ENTRIES if file.exists() else set()
        assert not wrong, f"{file.name} imports {sorted(wrong)}"
