"""The tables of `tests.benchmarks.caching`."""
