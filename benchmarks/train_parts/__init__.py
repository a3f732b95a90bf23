"""The sides of benchmarks/train.py, each a process of its own."""
