"""The core: rules and decisions, as functions of their inputs."""
