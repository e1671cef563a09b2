"""The cluster's certificates: issuing, TLS between them, files, the join token."""
