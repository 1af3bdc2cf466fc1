"""`python -m edge` is `maskedge`."""

import sys

from edge.cli import main

sys.exit(main())
