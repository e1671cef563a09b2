"""Playbooks: what they cannot mean, what becomes of their steps in a run, and the run itself."""
