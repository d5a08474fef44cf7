# Photos of three textured walls that meet in a corner, for structure from motion.
import cv2
import numpy as np

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0


def texture(seed):
    """Blobs of many sizes, so that there are corners at any distance."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((n, n, 3)), (512, 512), interpolation=cv2.INTER_CUBIC)
        for n in (12, 40, 110)
    ]
    return (255 * np.clip(0.5 + 1.1 * (sum(layers) / 3 - 0.5) * 2, 0, 1)).astype(np.uint8)


def corner_views(n, focals=(FOCAL,)):
    """n photos, taken with the focal lengths in turn, and their viewmats [n, 4, 4]."""
    walls = [  # origin and two edges; the corner is at (0, 0, 3), y is down
        (np.array([-3.0, 1, 3]), np.array([6.0, 0, 0]), np.array([0.0, 0, -6])),
        (np.array([0.0, -4, 3]), np.array([4.0, 0, -4]), np.array([0.0, 5, 0])),
        (np.array([0.0, -4, 3]), np.array([-4.0, 0, -4]), np.array([0.0, 5, 0])),
    ]
    textures = [texture(seed) for seed in range(3)]
    pictures, viewmats = [], []
    for i, angle in enumerate(np.linspace(-0.35, 0.35, n)):
        focal = focals[i % len(focals)]
        K = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
        position = np.array([2.5 * np.sin(angle), -0.8 + 0.5 * np.cos(3 * angle), -1.2])
        z = np.array([0, -0.2, 2.0]) - position
        z /= np.linalg.norm(z)
        x = np.cross([0.0, 1, 0], z)
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for (origin, u, v), pixels in zip(walls, textures, strict=True):
            plane = np.stack([u / 512, v / 512, origin - position], 1)
            homography = K @ R @ plane
            warped = cv2.warpPerspective(pixels, homography, (WIDTH, HEIGHT))
            seen = cv2.warpPerspective(np.ones((512, 512), np.uint8), homography, (WIDTH, HEIGHT))
            picture[seen > 0] = warped[seen > 0]
        pictures.append(picture)
        viewmats.append(np.block([[R, -(R @ position)[:, None]], [np.zeros(3), 1]]))
    return pictures, np.stack(viewmats)
