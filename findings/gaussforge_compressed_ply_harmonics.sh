#!/usr/bin/env bash
# GaussForge 0.6.0 (PyPI) scrambles the spherical harmonics of the compressed.ply that it writes: it
# stores them coefficient by coefficient, where the format has them colour by colour, as .ply has
# them (splat-transform 3.7.0 reads the same values from its files). All else comes back within the
# format's precision.
# Output seen (largest errors after .ply -> compressed.ply -> .ply; 8 bits cover -4 to 4, so 0.016):
#   position 0.000, f_dc 0.002, f_rest 0.79
# Exits with 1 if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6 gaussforge==0.6.0 \
    plyfile==1.1.3
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys
from pathlib import Path

import gaussforge
import numpy as np
from plyfile import PlyData, PlyElement

rng = np.random.default_rng(0)
names = ["x", "y", "z", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(45))]
names += ["opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
rows = np.zeros(512, [(name, "f4") for name in names])
for name in names:
    rows[name] = rng.uniform(-0.4, 0.4, len(rows))
rows["x"] = np.linspace(-0.4, 0.4, len(rows))  # the order afterwards
for name in ("scale_0", "scale_1", "scale_2"):
    rows[name] -= 4
rows["rot_0"] += 1
PlyData([PlyElement.describe(rows, "vertex")]).write("in.ply")

forge = gaussforge.GaussForge()
packed = forge.convert(Path("in.ply").read_bytes(), "ply", "compressed.ply")["data"]
Path("out.ply").write_bytes(forge.convert(packed, "compressed.ply", "ply")["data"])
back = PlyData.read("out.ply")["vertex"].data
order = np.argsort(rows["x"]), np.argsort(back["x"])


def error(prefix):
    columns = [name for name in names if name.startswith(prefix)]
    return max(np.abs(rows[c][order[0]] - back[c][order[1]]).max() for c in columns)


print(f"position {error('x'):.3f}, f_dc {error('f_dc'):.3f}, f_rest {error('f_rest'):.2f}")
sys.exit(not (error("f_dc") < 0.02 and error("f_rest") > 0.2))
PY
