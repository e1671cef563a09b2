"""The API over real TLS, and what it answers; the coordinator behind it is a fake (`service`)."""
