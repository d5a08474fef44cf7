# A picture that shows a scene: every view with its name and role, and a map from above.
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from runtime.files import atomic_path, make_writable_folder
from scenes.outliers import find_outliers
from scenes.scene import Scene

PAPER, INK, FAINT = (250, 250, 248), (34, 36, 40), (150, 152, 156)
ROLES = {"train": (42, 110, 187), "test": (217, 95, 14), "unused": FAINT}
WIDTH, MARGIN, GAP, LABEL, HEAD = 1600, 32, 10, 20, 84
MOST_VIEWS = 120  # of more views, evenly spaced ones are shown


def write_contact_sheet(scene: Scene, file: Path | str) -> Path:
    """Draw thumbnails (train and test by colour) and a map from above; returns the file."""
    file = check_sheet_file(Path(file))
    sheet = draw_contact_sheet(scene)
    with atomic_path(file) as temporary:
        sheet.save(temporary)
    return file


def check_sheet_file(file: Path) -> Path:
    """The file itself; ValueError or PermissionError if no picture can be written there."""
    if file.is_dir():
        raise ValueError(f"--contact_sheet {file} is a folder; name a picture in it")
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ValueError(f"--contact_sheet {file}: its name must end in .png, .jpg or .webp")
    make_writable_folder(file.parent)
    return file


def draw_contact_sheet(scene: Scene) -> Image.Image:
    """The picture: a heading, a map from above, and a thumbnail of each view (at most 120)."""
    shown = list(range(len(scene)))
    if len(shown) > MOST_VIEWS:
        shown = np.linspace(0, len(scene) - 1, MOST_VIEWS).round().astype(int).tolist()
    aspects = [scene.images[i].shape[1] / scene.images[i].shape[0] for i in shown]
    aspect = float(np.clip(np.median(aspects), 0.5, 3))
    columns = max(4, min(14, math.ceil(math.sqrt(2.4 * len(shown) / aspect))))
    cell = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    cell_height = round(cell / aspect)
    rows = math.ceil(len(shown) / columns)
    map_height = 560
    thumbs_at = HEAD + map_height + 2 * GAP
    height = thumbs_at + rows * (cell_height + LABEL + GAP) + MARGIN - GAP

    sheet = Image.new("RGB", (WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _heading(draw, scene)
    sheet.paste(_map(scene, (WIDTH - 2 * MARGIN, map_height)), (MARGIN, HEAD))
    for place, i in enumerate(shown):
        row, column = divmod(place, columns)
        x = MARGIN + column * (cell + GAP)
        y = thumbs_at + row * (cell_height + LABEL + GAP)
        thumb = Image.fromarray(tint_masked(scene, i))
        thumb.thumbnail((cell - 6, cell_height - 6), Image.Resampling.LANCZOS)
        draw.rectangle((x, y, x + cell - 1, y + cell_height - 1), fill=(236, 236, 233))
        left = x + (cell - thumb.width) // 2
        top = y + (cell_height - thumb.height) // 2
        color = ROLES[_role(scene, i)]
        draw.rectangle(
            (left - 3, top - 3, left + thumb.width + 2, top + thumb.height + 2), fill=color
        )
        sheet.paste(thumb, (left, top))
        font = _font(13)
        draw.text((x, y + cell_height + 3), _fit(scene.names[i], font, cell), color, font)
    return sheet


def _role(scene: Scene, view: int) -> str:
    if view in scene.split.train:
        return "train"
    return "test" if view in scene.split.test else "unused"


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _fit(text: str, font, width: int) -> str:
    """The end of the text (where names differ) that fits."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def _heading(draw: ImageDraw.ImageDraw, scene: Scene) -> None:
    name = scene.path.absolute().name
    draw.text((MARGIN, 18), _fit(name, _font(28), WIDTH // 2), INK, _font(28))
    sizes = sorted({tuple(size) for size in scene.cameras.sizes.tolist()})
    size = " and ".join(f"{w}x{h}" for w, h in sizes[:2]) + (" ..." if len(sizes) > 2 else "")
    facts = f"{scene.kind}   {len(scene)} views of {size}   {len(scene.points):,} points"
    draw.text((MARGIN, 54), facts, FAINT, _font(16))
    x = WIDTH - MARGIN
    counts = {"train": len(scene.split.train), "test": len(scene.split.test)}
    counts["unused"] = len(scene) - sum(counts.values())
    for role, count in reversed(counts.items()):
        if count:
            text = f"{count} {role}"
            x -= round(_font(18).getlength(text))
            draw.text((x, 40), text, INK, _font(18))
            draw.rectangle((x - 22, 44, x - 8, 58), fill=ROLES[role])
            x -= 46


def _map(scene: Scene, size: tuple[int, int]) -> Image.Image:
    """Cameras (wedges that point where they look) and points, seen from above."""
    fine = 2  # drawn larger, then averaged down: PIL does not smooth lines
    canvas = Image.new("RGB", (size[0] * fine, size[1] * fine), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    axes = _ground_axes(scene)
    cameras = scene.cameras.positions.double().numpy() @ axes.T
    looks = scene.cameras.viewmats[:, 2, :3].double().numpy() @ axes.T
    points = scene.points.double().numpy() @ axes.T
    low, high = _window(cameras[~find_outliers(cameras)], points)
    scale = fine * min((size[0] - 60) / (high - low)[0], (size[1] - 60) / (high - low)[1])
    middle = (low + high) / 2

    def to_pixels(xy: np.ndarray) -> np.ndarray:
        return (xy - middle) * [scale, -scale] + np.array(canvas.size) / 2

    if len(points):
        _draw_points(canvas, to_pixels(points[:, :2]), scene.point_colors.numpy())
    reach = 15 * fine
    order = sorted(range(len(scene)), key=lambda i: _role(scene, i) == "test")  # test on top
    for i in order:
        x, y = to_pixels(cameras[i, :2])
        ahead = looks[i, :2] * [1, -1]
        length = np.linalg.norm(ahead)
        color = ROLES[_role(scene, i)]
        if length > 0.05:  # else it looks straight down: only the dot
            ahead = ahead / length * reach
            side = np.array([-ahead[1], ahead[0]]) * 0.42
            wedge = [(x, y), *(tuple(np.array([x, y]) + ahead + s * side) for s in (1, -1))]
            draw.polygon(wedge, outline=color, fill=_pale(color), width=fine)
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=color)
    draw.rectangle((0, 0, canvas.width - 1, canvas.height - 1), outline=(220, 220, 216), width=fine)
    image = canvas.resize(size, Image.Resampling.BOX)
    ImageDraw.Draw(image).text((12, 8), "from above", FAINT, _font(15))
    return image


def _pale(color: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple((value + 2 * 255) // 3 for value in color)


def tint_masked(scene: Scene, index: int) -> np.ndarray:
    """A photo, uint8 [H, W, 3], red where its mask hides it."""
    image, mask = scene.images[index], None if scene.masks is None else scene.masks[index]
    if mask is None:
        return image
    return np.where(mask[..., None], image, image // 2 + np.array([127, 0, 0], np.uint8))


def _ground_axes(scene: Scene) -> np.ndarray:
    """Rows right, forward, up [3, 3]: up as the cameras have it, forward as they mostly look."""
    R = scene.cameras.viewmats[:, :3, :3].double().numpy()
    up = -R[:, 1].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-6 else np.array([0.0, 0, 1])
    forward = R[:, 2].mean(0)
    forward = forward - (forward @ up) * up
    if np.linalg.norm(forward) < 1e-3:  # all around: any direction will do
        forward = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    forward /= np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), forward, up])


def _window(cameras: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner of what the map shows: these cameras and most points, not far ones."""
    low, high = cameras[:, :2].min(0), cameras[:, :2].max(0)
    if len(points):
        a, b = np.quantile(points[:, :2], [0.03, 0.97], axis=0)
        reach = 1.5 * max(float((high - low).max()), 1e-9)
        low = np.minimum(low, np.maximum(a, low - reach))
        high = np.maximum(high, np.minimum(b, high + reach))
    pad = max(0.06 * float((high - low).max()), 1e-6)
    return low - pad, high + pad


def _draw_points(canvas: Image.Image, xy: np.ndarray, colors: np.ndarray) -> None:
    """Points as 3x3 pixel dots in their own colour, a little darkened where they are pale."""
    pixels = np.array(canvas)
    x, y = np.clip(xy, -1e6, 1e6).round().astype(int).T
    colors = (colors * 255 * 0.9).astype(np.uint8)
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            inside = (x + dx >= 0) & (x + dx < canvas.width) & (y + dy >= 0)
            inside &= y + dy < canvas.height
            pixels[y[inside] + dy, x[inside] + dx] = colors[inside]
    canvas.paste(Image.fromarray(pixels))
