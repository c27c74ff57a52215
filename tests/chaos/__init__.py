"""Blows that the product has to take: each a function of (times, seed), a few in the tests, all in `make chaos`."""
