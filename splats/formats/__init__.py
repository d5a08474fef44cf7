# Files of splats: a reader, and perhaps a writer, for each format; all are in registry.FORMATS.
