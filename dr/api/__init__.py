"""The HTTP API and web pages over a running coordinator.

Here: routes, schemas, authentication, and the words in which an answer is given.
Not here: decisions or state of its own: it asks `dr.coordinator`. Imports that, `dr.core`, `dr.ports` and `dr.model`.
"""
