# Networks, nothing else: tensors in, tensors out. Imports only runtime.
