"""`python3 -m sockpid ...`"""

import sys

from .cli import main

sys.exit(main())
