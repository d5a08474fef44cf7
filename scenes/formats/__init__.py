# Readers of capture formats: a file or folder on disk -> Capture.
