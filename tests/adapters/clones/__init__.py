"""Clones for drills: what they are made of, their files and names. libvirt itself is in the lab."""
