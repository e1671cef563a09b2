"""The real world behind `dr.ports`, a folder a world: libvirt/, fencing/, store/, link/, ssh/, watchdog/, notify/.

Here: how to talk to it, its time limits, and the translation of its errors into the port's own.
Not here: what to do about an answer (`dr.core`), or which adapter is used (`dr.cli`).
Imports only `dr.model` and `dr.ports`.
"""
