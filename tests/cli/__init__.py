"""The command line: configuration files, commands against the API of tests/api, joining."""
