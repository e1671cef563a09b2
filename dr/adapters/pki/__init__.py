"""Who is who: the cluster's certificates, and the identity that each one shows.

`identity` and `credentials` are standard library only, as the agent imports them; `token` needs msgspec only.
`authority` and `request` make keys and certificates with `cryptography`, and are imported only where that is done.
Not here: who may do what with an identity (the listener that asks), and which hosts were removed (the coordinator).
"""
