"""Commands on hosts over SSH: the coordinator's end (`runner`), and what it has the host's Python do (`remote`)."""
