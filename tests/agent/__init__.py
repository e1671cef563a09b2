"""The agent over fakes of its ports: sessions, commands, and a crash at every step."""
