"""The same world as `dr.adapters`, simulated: virtual time, seeded faults, the scenario runner and the fuzzer.

Here: simulated ports that can fail in every way a real one can; a seed replays a whole cluster.
Not here: decisions of its own: it calls the same `dr.core` as the coordinator. No real time, network or process.
Imports only `dr.model`, `dr.core` and `dr.ports`.
"""
