# Training of Efficient-LVSM: which views, how they are prepared, and by what it learns.
