# The multi-scale residual VQ-VAE (VAR's tokenizer) and the bridge into its decoder.
