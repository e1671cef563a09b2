"""Tests of dr.adapters.health, on fixture trees."""
