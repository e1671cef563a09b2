"""The store and the agent's memory: twins, kill -9, full disks."""
