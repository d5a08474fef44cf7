# The viewer in the browser: python -m splats.view RESULT_OR_PLY
