"""Benchmarks behind the figures in the README and docs."""
