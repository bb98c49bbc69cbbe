"""The engines that benchmarks compare, by a word: `choose.py` reads it."""
