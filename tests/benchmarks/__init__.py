"""Benchmarks, run by hand: ``python tests/benchmarks --help``. pytest does not collect them."""
