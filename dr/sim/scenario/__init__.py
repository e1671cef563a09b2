"""The scenario language: hosts, guests, rules, timed faults, commands, expectations; see docs/simulator.md.

Here: the language as typed records, how they are written, checked, and what each verb does and each fact means.
Not here: running a scenario (`dr.sim.run`), reading files (`dr.cli.scenario_file`).
"""
