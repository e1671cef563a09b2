"""Nouns: Host, Guest, Rule, Policy, Operation, Proof and the records made of them.

Here: frozen, typed, serialisable data and the questions a record can answer from its own fields.
Not here: decisions (`dr.core`), I/O, clocks, logging. Imports nothing else of dr.
"""
