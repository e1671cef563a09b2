"""Durable things: the coordinator's store (`sqlite`), the agent's memory (`memory`), atomic files (`atomic`).

Not here: what the keys and values mean. `memory` and `atomic` are imported by the agent and stay small.
"""
