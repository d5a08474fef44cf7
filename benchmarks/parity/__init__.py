# Our networks beside vectors of the original ones.
