"""The protocols through which the world is reached: Hypervisor, Fencer, Store, Link, Watchdog, Prober, Notifier.

Here: `typing.Protocol` classes, the values that cross them, and the errors they may raise.
Not here: any implementation. The real ones are in `dr.adapters`, the simulated ones in `dr.sim`.
Imports only `dr.model`.
"""
