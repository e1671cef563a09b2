"""The coordinator process: its loop, its store, its sessions."""
