"""The process on each KVM host: reports health and guests, runs tickets at most once, seals and testifies.

Here: what runs next to the guests, and must stay small (45 MiB): stdlib, msgspec, websockets, the ports it is given.
Not here: decisions about other hosts (`dr.coordinator`), adapters (`dr.cli` hands them in), any heavy library.
Imports only `dr.model`, `dr.core` and `dr.ports`.
"""
