# Weights on disk: reading and writing (io), the layout of our own files (system), which systems
# there are (registry), and the command.
