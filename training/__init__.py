# Training: the flags of the original's scripts, datasets, loops.
