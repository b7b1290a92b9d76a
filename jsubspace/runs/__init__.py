"""From a config to a run, its results and its figures."""
