"""How well weights with a constraint train, next to the peers.

`python -m tests.benchmarks.training_quality` runs all problems and writes docs/training_quality.md;
with names, or parts of names, it runs these problems and prints their tables.
"""
