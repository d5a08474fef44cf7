# Which photos look alike, from the features they have anyway: VLAD (Jegou et al., "Aggregating
# local descriptors into a compact image representation", CVPR 2010) with words of their own.
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from scenes.bindings import pycolmap

WORDS = 64
SAMPLES = 20_000  # descriptors of all photos together from which the words are made


def compute_similarity(database: Path, names: list[str]) -> np.ndarray:
    """Cosines between the photos' VLAD vectors, [N, N] float32, in the order of `names`.

    COLMAP's vocabulary trees would have to be downloaded; words made from the photos themselves
    need none and fit them better.
    """
    with pycolmap.Database.open(database) as store:
        ids = {image.name: image.image_id for image in store.read_all_images()}

        def read(name: str) -> np.ndarray:
            descriptors = store.read_descriptors(ids[name]).data.astype(np.float32)
            return descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1)

        rng, most = np.random.default_rng(0), max(1, SAMPLES // len(names))
        samples = [rng.permutation(read(name))[:most] for name in names]
        words = _make_words(np.concatenate(samples))
        vectors = np.stack([compute_vlad(read(name), words) for name in names])
    return vectors @ vectors.T


def _make_words(descriptors: np.ndarray) -> np.ndarray:
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER | cv2.TERM_CRITERIA_EPS, 20, 1e-4)
    k = min(WORDS, len(descriptors))
    if k == 0:
        return np.zeros((1, 128), np.float32)
    return cv2.kmeans(descriptors, k, None, criteria, 1, cv2.KMEANS_PP_CENTERS)[2]


def compute_vlad(descriptors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The unit vector [K * D] of descriptors [M, D] and words [K, D].

    Residuals are summed over each word's descriptors, normalised by word, and their square roots
    normalised as a whole (Arandjelovic and Zisserman, "All about VLAD", CVPR 2013).
    """
    nearest = np.argmax(descriptors @ words.T - 0.5 * (words**2).sum(1), axis=1)
    sums = np.zeros_like(words)
    np.add.at(sums, nearest, descriptors - words[nearest])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True) + 1e-9
    vector = (np.sign(sums) * np.sqrt(np.abs(sums))).ravel()
    return vector / (np.linalg.norm(vector) + 1e-9)
