# Networks, nothing else: tensors in, tensors out. Imports no other room.
