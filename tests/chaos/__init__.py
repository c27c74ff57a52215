"""Faults that the product must survive, as functions of (times, seed): some in the tests, all in `make chaos`."""
