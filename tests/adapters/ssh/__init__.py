"""Tests of dr.adapters.ssh."""
