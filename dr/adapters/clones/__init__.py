"""Clones of running guests for drills: disks that libvirt copied, domains and a network that end with the agent.

The agent imports this: standard library and libvirt only.
"""
