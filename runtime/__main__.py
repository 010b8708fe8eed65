"""`python3 -I -S runtime/ ...` runs sockpid from a bare checkout."""

import sys

from sockpid.cli import main

sys.exit(main())
