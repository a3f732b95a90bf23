"""The two sides of benchmarks/corpus.py, and what both of them read."""
