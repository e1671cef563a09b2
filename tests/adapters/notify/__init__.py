"""Tests of dr.adapters.notify."""
