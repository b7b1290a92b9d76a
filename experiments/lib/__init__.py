"""What the figures and benchmarks share."""
