# Efficient-LVSM's published commands.
