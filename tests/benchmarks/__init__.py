"""Benchmarks: `python -m tests.benchmarks` runs all, `python -m tests.benchmarks.reading` one."""
