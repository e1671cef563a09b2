"""Tests of dr.adapters.probe."""
