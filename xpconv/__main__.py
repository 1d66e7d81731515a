"""``python -m xpconv``: the command line."""

import sys

from xpconv.cli import main

sys.exit(main())
