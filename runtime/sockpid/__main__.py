"""`python3 -m sockpid ...`"""

import sys

from sockpid.cli.cli import main

sys.exit(main())
