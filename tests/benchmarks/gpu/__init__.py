"""What paramdesc costs on a GPU: `python -m tests.benchmarks.gpu` writes docs/gpu.md."""
