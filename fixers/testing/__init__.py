# Tests of a fixer on triplets: what test_tile.py and test_varsr.py do.
