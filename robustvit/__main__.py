"""`python -m robustvit` is the command `robustvit`."""

import sys

from robustvit.cli import main

sys.exit(main())
