"""`python -m integration.lab`: see cli.py."""

import sys

from integration.lab.cli import main

sys.exit(main())
