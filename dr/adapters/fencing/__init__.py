"""Fence devices through the ClusterLabs fence agents, which are separate programs.

`agents` is the port's implementation; `catalogue` says which agents count; `parameters` is what goes in and what
may come out; `identity` asks a BMC who it is; `process` and `keeper` run a program so that nothing of it is left.
Not here: when to fence, and what a reading proves (`dr.core`).
"""
