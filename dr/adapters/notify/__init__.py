"""Telling people: commands and webhooks. `notifier` is the port's implementation, `sinks` how one message gets out."""
