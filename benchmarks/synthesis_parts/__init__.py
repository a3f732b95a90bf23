"""The parts of benchmarks/synthesis.py, each a process of its own."""
