"""A running node: what is wired to what, in which order effects happen, what outlives it."""
