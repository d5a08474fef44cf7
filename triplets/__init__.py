# Triplets on disk: a render, its ground truth, reference views; manifests, pictures, windows.
