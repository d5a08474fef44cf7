#!/usr/bin/env bash
# pycolmap 4.2.1 cuts the names of photos in images.txt at the first space, although it writes them
# in full itself: a model that it wrote as text comes back with two photos of the same name.
# Binary models keep the names. Format: https://colmap.github.io/format.html
# Output seen:
#   binary: ['a b.png', 'a c.png']
#   text: ['a', 'a']
# Exits with 1 if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6 pycolmap==4.2.1
cd "$work"
"$work/venv/bin/python" - <<'PY'
import pathlib
import sys

import numpy as np  # before pycolmap
import pycolmap

model = pycolmap.Reconstruction()
camera = pycolmap.Camera(
    model="PINHOLE", width=64, height=48, params=[60, 60, 32, 24], camera_id=1
)
model.add_camera_with_trivial_rig(camera)
for i, name in enumerate(["a b.png", "a c.png"], 1):
    pose = pycolmap.Rigid3d(np.eye(4)[:3])
    model.add_image_with_trivial_frame(pycolmap.Image(name=name, camera_id=1, image_id=i), pose)
names = {}
for kind, write in (("binary", model.write_binary), ("text", model.write_text)):
    pycolmap.logging.minloglevel = 2
    pathlib.Path(kind).mkdir()
    write(kind)
    names[kind] = sorted(image.name for image in pycolmap.Reconstruction(kind).images.values())
    print(f"{kind}: {names[kind]}")
sys.exit(names != {"binary": ["a b.png", "a c.png"], "text": ["a", "a"]})
PY
