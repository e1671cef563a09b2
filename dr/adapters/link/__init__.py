"""The agent link: websockets over mutual TLS 1.3; the agent dials out.

`client` is the agent's side, `server` the coordinator's, `wires` what both share. Not here: the messages
(`dr.model.wire`), and who may be a session's peer beyond its certificate (the `allowed` callback).
"""
