"""Decisions: `decide(state, event, now) -> Decision(changes, effects)` and the parts that it is made of.

Here: state machines as tables, the detector, fencing ladder, placement, evacuation, migration, operation runner.
All of it pure: the same input gives the same output, so simulation, replay and the real coordinator share it.
Not here: a clock (`now` comes in), randomness, asyncio, threads, files, processes, logging. Imports only `dr.model`.
"""
