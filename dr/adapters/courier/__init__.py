"""Copies disk image files of guests that are off from one agent to another, over mutual TLS 1.3.

courier.py is the door (`ports.courier`); sender.py and taker.py are the two ends, source.py and target.py their files,
cut into chunks.py; dial.py and listener.py make a connection, wire.py carries messages.py over it; errand.py is what
event loop and threads share of one copy. All work is done in threads: none of it holds up the agent's event loop.
"""
