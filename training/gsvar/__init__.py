# Training of GS-VAR: tokenizer, transformer and VAE-bridge, with the flags of the original.
