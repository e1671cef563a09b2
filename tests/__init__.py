"""Unit, property and scenario tests: seconds, no root, no network. What needs the lab is in `integration/`."""
