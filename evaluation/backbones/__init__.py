# LPIPS and the ImageNet weights that it stands on, from wherever they can be had.
