"""Benchmarks: measured on real guests in the lab, recorded as figures and ratios, never asserted in tests."""
