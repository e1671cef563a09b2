"""The deciding process: runtime loop, leadership, recovery from the store.

Here: events in, `dr.core.decide`, changes written in one guarded transaction, then effects out, in that order.
Not here: the decisions (`dr.core`), HTTP (`dr.api`), the choice of store, link or fencer (`dr.cli` hands them in).
Imports only `dr.model`, `dr.core` and `dr.ports`.
"""
