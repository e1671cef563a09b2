"""The `dr` command, and the one place that chooses adapters and starts things.

Here: commands, their output (data to stdout, the rest to stderr), exit codes, and the wiring of agent and coordinator.
Not here: rules of the product. A command asks the API, or starts a process; it decides nothing about guests.
"""
