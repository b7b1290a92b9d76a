"""Benchmarks and experiments: run from the repository's root as ``python -m experiments.NAME``."""
