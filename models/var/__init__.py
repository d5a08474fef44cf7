# Next-scale prediction (VAR, arXiv 2404.02905): the schedule of scales, token segments and masks,
# transformer, decoding.
