"""Copies of disk images over real TLS on 127.0.0.1."""
