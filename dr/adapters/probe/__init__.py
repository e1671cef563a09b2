"""Looking for a host from here. The agent imports this: standard library only."""
