"""The sections of `tools/benchmark.py`, one module each, and what they share."""
