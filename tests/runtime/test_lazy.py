# Packages whose names load at first use.
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.lazy import exports

ROOT = Path(__file__).resolve().parents[2]


def loaded(statement: str) -> set[str]:
    """The modules that a fresh Python has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split())


def test_a_name_is_looked_up_in_its_module():
    get = exports([], format_count="runtime.text", missing="runtime.text")
    assert get("format_count")(2, "file") == "2 files"
    with pytest.raises(AttributeError, match="no public name 'other' here; there are format_count"):
        get("other")
    with pytest.raises(AttributeError, match="missing"):
        get("missing")


def test_a_name_that_a_submodule_has_is_refused(tmp_path):
    (tmp_path / "render.py").write_text("")
    with pytest.raises(ImportError, match="'render' is that of a submodule too"):
        exports([str(tmp_path)], render="toy.rasterize")
    exports([str(tmp_path)], rasterize="toy.render")


def test_rooms_load_only_what_is_used():
    assert "torch" not in loaded("import scenes, scenes.procedural, runtime.command")
    modules = loaded("from scenes import Cameras\nfrom scenes.photos import decode")
    assert "torch" in modules and not modules & {"cv2", "pycolmap", "numba"}


def test_evaluation_loads_optional_packages_only_to_use_them():
    heavy = {"torchmetrics", "lpips", "matplotlib", "jinja2", "imageio_ffmpeg", "numba"}
    names = ("metrics", "fixing_report", "report", "sheet", "video")
    assert not loaded("import " + ", ".join(f"evaluation.{name}" for name in names)) & heavy


def test_entry_points_load_torch_only_to_work():
    entries = (
        "scenes.__main__, scenes.procedural.__main__, gen_data.gen_data, gen_data.gen_data_json"
    )
    heavy = {"torch", "cv2", "pycolmap", "numba", "scipy", "matplotlib", "gsplat"}
    assert not loaded(f"import {entries}") & heavy
