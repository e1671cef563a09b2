"""Tests of the adapters, one folder a world."""
