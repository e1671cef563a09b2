"""Tests of dr.adapters.fencing."""
