"""Playbooks: what they cannot mean, and their runs."""
